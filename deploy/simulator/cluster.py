"""What is simulated: instances on the nodes of a network, how they are run, and what happens to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from cluster.instance.config import HandoverConfig
from cluster.latency.latency_model import LatencyModel
from cluster.role import InstanceRole
from cluster.topology.topology import Topology
from deploy.errors import InputError
from router.policies import DISPATCH_POLICIES, RESCHEDULING_POLICIES, ReschedulingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class SimInstance:
    """`latency`: how long its steps take. `token_budget` None: what its role's policy makes of `saturation_tokens`.

    `block_bytes`: of the KV in a block. `max_model_len`: prompt and output together. `max_context_tokens`: of so many
    tokens, KV included, the machine takes at once; the others that a step was planned with are next (None: no limit).
    """

    name: str
    role: InstanceRole
    node: str
    latency: LatencyModel
    num_blocks: int
    block_bytes: int
    max_model_len: int
    block_size: int = 16
    max_num_seqs: int = 256
    saturation_tokens: int = 2048
    token_budget: int | None = None
    enable_prefix_caching: bool = True
    max_context_tokens: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Death:
    """`back_after_s`: when its next life serves, from then on; None: it does not come back."""

    at_s: float
    instance: str
    back_after_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SimCluster:
    """`topology` is how the network is, `believed` what the router takes it for (None: knows it as it is).

    Instances on one node, of which the topology has no link with itself, give each other KV in no time.
    `message_s`: what a control message takes. `host_step_s`: what an instance does between two steps beside the model.
    `start_up_s`: when an instance joins, by its name; 0 for who is not named. `suspect_after_s`: after so long without
    a word an instance is lost. `no_instance_timeout_s`: how long the queue waits for a role that nobody has.
    `max_queued_requests`: who comes while so many wait is refused; endless if nobody says.
    """

    instances: tuple[SimInstance, ...]
    topology: Topology
    believed: Topology | None = None
    policy: str = "least_time"
    rescheduling: ReschedulingConfig = field(default_factory=ReschedulingConfig)
    handover: HandoverConfig = field(default_factory=HandoverConfig)
    seed: int = 0
    start_up_s: Mapping[str, float] = field(default_factory=dict)
    deaths: tuple[Death, ...] = ()
    message_s: float = 0.0
    host_step_s: float = 0.0
    snapshot_interval_s: float = 0.25
    suspect_after_s: float = 2.0
    no_instance_timeout_s: float = 30.0
    retry_link_after_s: float = 10.0
    max_queued_requests: int = 1 << 60

    def __post_init__(self) -> None:
        """Raises InputError."""
        names = [instance.name for instance in self.instances]
        if not names:
            raise InputError("a cluster without instances serves nobody")
        if doubled := {name for name in names if names.count(name) > 1}:
            raise InputError(f"two instances are called {min(doubled)}")
        nodes = {node.name for node in self.topology.nodes}
        believed = {node.name for node in self.believed.nodes} if self.believed is not None else None
        for instance in self.instances:
            if instance.node not in nodes:
                raise InputError(f"{instance.name} is on node {instance.node}, which the topology does not have")
            if believed is not None and instance.node not in believed:
                raise InputError(f"{instance.name} is on node {instance.node}, of which the router believes nothing")
        for name in [*self.start_up_s, *(death.instance for death in self.deaths)]:
            if name not in names:
                raise InputError(f"there is no instance {name} to start or to die")
        if self.policy not in DISPATCH_POLICIES:
            raise InputError(f"there is no dispatch policy {self.policy}; there are {', '.join(DISPATCH_POLICIES)}")
        if self.rescheduling.policy not in RESCHEDULING_POLICIES:
            known = ", ".join(RESCHEDULING_POLICIES)
            raise InputError(f"there is no rescheduling policy {self.rescheduling.policy}; there are {known}")
