"""Role is data: what an instance does differently when it prefills, decodes, or both."""

from collections.abc import Mapping
from enum import Enum
from typing import Protocol


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


class RolePolicy(Protocol):
    """Pure choices; each pool brings its own, and `deploy` hands every instance the whole table."""

    def token_budget(self, saturation_tokens: int, max_num_seqs: int) -> int:
        """Tokens per step, unless the deployment says how many. `saturation_tokens` is L_m (DistServe, section 4.3)."""

    def watermark_blocks(self, num_blocks: int) -> int:
        """Blocks that incoming KV must leave free, for the running sequences to grow into."""


RolePolicies = Mapping[InstanceRole, RolePolicy]
