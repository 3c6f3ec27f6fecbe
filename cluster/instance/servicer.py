"""The gRPC service of an instance: names the methods, and nothing else."""

from cluster.instance.fronts import Fronts
from cluster.instance.peers import Sources
from cluster.pb import instance_pb2_grpc


class InstanceServicer(instance_pb2_grpc.InstanceServicer):
    """The methods are attributes because grpc.aio asks a handler whether it is an async generator, not what it returns."""

    def __init__(self, fronts: Fronts, sources: Sources) -> None:
        self.Serve = fronts.serve
        self.Handover = sources.serve
