"""The gRPC service of an instance: names the methods, and nothing else."""

from cluster.instance.fronts import Fronts
from cluster.instance.peers import Sources


class InstanceServicer:
    """Attributes, not methods: grpc.aio asks of a handler that it *is* an async generator function."""

    def __init__(self, fronts: Fronts, sources: Sources) -> None:
        self.Serve = fronts.serve
        self.Handover = sources.serve
