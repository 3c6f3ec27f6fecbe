"""Virtual usage and freeness (Llumnix, OSDI'24, section 4.3): one number for load, fragmentation and draining."""

import math
from dataclasses import dataclass
from typing import Self

from router.policies.rescheduling import InstanceLoad, RequestLoad


@dataclass(frozen=True, slots=True)
class Usage:
    """An instance's virtual usage in blocks, and the requests among which what is left is shared."""

    num_blocks: int
    block_size: int
    virtual_blocks: float
    batch_size: int

    @classmethod
    def of(cls, instance: InstanceLoad) -> Self:
        """A request that runs weighs what it has, the first that waits what it needs, and the others nothing yet.

        A draining instance has one more request, of infinite size: it is never free.
        """
        running = [request for request in instance.requests if not request.is_queued]
        first_queued = next((request for request in instance.requests if request.is_queued), None)
        weighing = [*running, first_queued] if first_queued else running
        usage = sum(instance.num_blocks_of(request) for request in weighing)
        return cls(instance.num_blocks, instance.block_size, math.inf if instance.is_draining else usage, len(running))

    @property
    def freeness_steps(self) -> float:
        """(M - sum of V) / B, in tokens for each sequence of the batch: decode steps until the memory is used up."""
        return (self.num_blocks - self.virtual_blocks) * self.block_size / max(1, self.batch_size)

    def changed(self, num_blocks: int, num_requests: int) -> "Usage":
        return Usage(self.num_blocks, self.block_size, self.virtual_blocks + num_blocks, self.batch_size + num_requests)


def spread_steps(one: Usage, other: Usage) -> float:
    return abs(one.freeness_steps - other.freeness_steps)


def has_room(instance: InstanceLoad, request: RequestLoad) -> bool:
    """A seat, and blocks for the request as it is now."""
    used = sum(instance.num_blocks_of(it) for it in instance.requests)
    has_seat = len(instance.requests) < instance.max_num_seqs
    return has_seat and used + instance.num_blocks_of(request) <= instance.num_blocks
