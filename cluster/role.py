"""Role is data: what an instance does differently when it prefills, decodes, or both."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class InstanceRole(Enum):
    PREFILL = "prefill"
    DECODE = "decode"
    MIXED = "mixed"


class InstanceStatus(Enum):
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    DRAINING = "DRAINING"
    STOPPING = "STOPPING"
    FAILED = "FAILED"


@dataclass(frozen=True, slots=True, kw_only=True)
class RolePolicy:
    """`prefills_to_saturation`: a step's token budget is the saturation length L_m (DistServe, section 4.3), not the
    configured one. `admission_watermark`: the share of blocks that incoming KV must leave free, for running sequences
    to grow into before one has to be preempted.
    """

    prefills_to_saturation: bool
    admission_watermark: float


RolePolicies = Mapping[InstanceRole, RolePolicy]
