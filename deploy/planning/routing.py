"""What the router of a deployment does in trials of its plans."""

from dataclasses import dataclass, field

from cluster.instance.config import HandoverConfig
from cluster.spec.deployment import Deployment
from router.policies import ReschedulingConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """As a file without a word about it; but with a queue that has no end."""

    policy: str = "least_time"
    rescheduling: ReschedulingConfig = field(default_factory=ReschedulingConfig)
    handover: HandoverConfig = field(default_factory=HandoverConfig)
    max_queued_requests: int = 1 << 60


def routing_of(deployment: Deployment) -> Routing:
    router = deployment.spec.router
    return Routing(
        policy=router.policy,
        rescheduling=ReschedulingConfig(**router.rescheduling.model_dump()),
        handover=HandoverConfig(**deployment.spec.handover.model_dump()),
        max_queued_requests=router.max_queued_requests,
    )
