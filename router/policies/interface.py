"""What a dispatch policy sees and says. Policies are pure: no clock, no logging, no mutation."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.messages import Holder
from cluster.role import InstanceRole


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """`num_prompt_tokens`: to be computed; for one that ran before, its output so far is among them."""

    request_id: str
    num_prompt_tokens: int
    priority: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceView:
    """An instance's last snapshot, plus what was dispatched to it since.

    `num_queued_tokens`: to be prefilled before a new request is. `num_committed_blocks`: needed now by the
    requests that run there or are on their way there. `unreachable`: no KV gets from here to there now.
    """

    holder: Holder
    role: InstanceRole
    num_blocks: int
    block_size: int
    max_num_seqs: int
    saturation_tokens: int
    num_queued_tokens: int = 0
    num_requests: int = 0
    num_committed_blocks: int = 0
    unreachable: frozenset[Holder] = frozenset()

    @property
    def can_prefill(self) -> bool:
        return self.role is not InstanceRole.DECODE

    @property
    def can_decode(self) -> bool:
        return self.role is not InstanceRole.PREFILL


@dataclass(frozen=True, slots=True)
class Decision:
    """Where to prefill and where to decode; the same instance twice means no handover."""

    prefill: Holder
    decode: Holder


class DispatchPolicy(Protocol):
    def select(self, request: RequestView, instances: Sequence[InstanceView]) -> Decision | None:
        """None: not now; the request waits in the queue."""
