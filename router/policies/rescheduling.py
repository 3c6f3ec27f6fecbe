"""What a rescheduling policy sees and says: which running request should go on where. Pure, as all policies are."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from cluster.messages import Holder
from cluster.role import InstanceRole
from router.policies.interface import Forecast


@dataclass(frozen=True, slots=True, kw_only=True)
class ReschedulingConfig:
    """Freeness is in decode steps: how many the running requests of an instance can take before its blocks are used up.

    Instances with less than `source_below_steps` give requests away, those with more than `target_above_steps` take
    them. A request stays for `cooldown_rounds` where it came to, and goes back to where it was only for a gain of more
    than `margin_steps`. `max_handovers_per_instance`: that leave it and come to it, prefilled requests not counted.
    A move that is predicted to take more than `max_move_s` is not made to relieve anybody: until it is over, the load
    that it was to even out is another. Draining makes it all the same.
    """

    policy: str = "load_balance"
    interval_s: float = 1.0
    source_below_steps: float = 256.0
    target_above_steps: float = 1024.0
    cooldown_rounds: int = 10
    margin_steps: float = 128.0
    max_handovers_per_instance: int = 2
    max_move_s: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestLoad:
    """`is_queued`: it waits for its first step there, without blocks. `can_move`: nobody moves it already.

    `came_from` had it before, until `num_rounds_since_move` rounds ago (None: it was never moved).
    """

    request_id: str
    num_tokens: int
    priority: int = 0
    is_queued: bool = False
    can_move: bool = True
    came_from: Holder | None = None
    num_rounds_since_move: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceLoad:
    """`requests`: all that are here, or on their way to here; the queued ones in their order.

    `num_moving`: handovers from here and to here that are under way, but for those of prefilled requests.
    Blocks of one `kv_layout` mean nothing to an instance of another.
    """

    holder: Holder
    role: InstanceRole
    kv_layout: str
    num_blocks: int
    block_size: int
    max_num_seqs: int
    requests: tuple[RequestLoad, ...] = ()
    num_moving: int = 0
    is_draining: bool = False

    @property
    def can_decode(self) -> bool:
        return self.role is not InstanceRole.PREFILL

    def num_blocks_of(self, request: RequestLoad) -> int:
        """With the one for its next token."""
        return request.num_tokens // self.block_size + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    request_id: str
    source: Holder
    target: Holder
    reason: str


class ReschedulingPolicy(Protocol):
    def plan(self, instances: Sequence[InstanceLoad], forecast: Forecast) -> list[Move]:
        """Everything that should start moving now."""
