"""What the router is told when it is made, and what it tells once it runs."""

from dataclasses import dataclass, field

from cluster.secret import ClusterSecret
from cluster.topology.topology import Topology
from router.policies.rescheduling import ReschedulingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterConfig:
    """`max_model_len` None: the model's own. Ports of 0 are drawn.

    `suspect_after_s`: an instance that is silent for so long is treated as lost. `no_instance_timeout_s`: how long
    requests wait for a role that no instance has; then they are refused, as are new ones. `grace_s`: a resumable
    request outlives its lost client by so long. `retention_s`: a request's tokens outlive its end by so long. `term`:
    of this router's life; greater than that of any router before it. `topology`: what was measured before it was made,
    of nodes of these names. `retry_link_after_s`: a link over which a handover failed is avoided for so long.
    """

    name: str
    deployment: str
    model_name: str
    model_path: str
    secret: ClusterSecret
    term: int
    grpc_host: str = "127.0.0.1"
    grpc_port: int = 50051
    http_host: str = "127.0.0.1"
    http_port: int = 8000
    policy: str = "least_time"
    max_model_len: int | None = None
    max_queued_requests: int = 1024
    request_timeout_s: float | None = 600.0
    suspect_after_s: float = 2.0
    no_instance_timeout_s: float = 30.0
    grace_s: float = 10.0
    retry_link_after_s: float = 10.0
    retention_s: float = 30.0
    topology: Topology | None = None
    rescheduling: ReschedulingConfig = field(default_factory=ReschedulingConfig)


@dataclass(frozen=True, slots=True, kw_only=True)
class RouterInfo:
    name: str
    term: int
    grpc_address: str
    http_address: str
    pid: int
