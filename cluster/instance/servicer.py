"""The gRPC service of an instance: translates, and nothing else."""

from collections.abc import AsyncIterator

import grpc

from cluster.instance.fronts import Fronts
from cluster.instance.peers import Sources
from cluster.pb import instance_pb2, instance_pb2_grpc


class InstanceServicer(instance_pb2_grpc.InstanceServicer):
    def __init__(self, fronts: Fronts, sources: Sources) -> None:
        self._fronts = fronts
        self._sources = sources

    def Serve(
        self, request_iterator: AsyncIterator[instance_pb2.FrontMessage], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[instance_pb2.InstanceMessage]:
        return self._fronts.serve(request_iterator, context)

    def Handover(
        self, request_iterator: AsyncIterator[instance_pb2.SourceMessage], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[instance_pb2.ReceiverMessage]:
        return self._sources.serve(request_iterator, context)
