"""What a dispatch policy sees and says. Policies are pure: no clock, no logging, no mutation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from cluster.messages import Holder
from cluster.role import InstanceRole

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestView:
    """`num_prompt_tokens`: to be computed; for one that ran before, its output so far is among them.

    `block_hashes`: of its full blocks, as an engine names them; () when nobody has worked them out.
    `num_known_tokens`: how many of the tokens, from the first on, an instance probably has the KV of.
    """

    request_id: str
    num_prompt_tokens: int
    priority: int = 0
    block_hashes: tuple[bytes, ...] = ()
    num_known_tokens: Mapping[Holder, int] = field(default_factory=dict)

    def num_missing_tokens(self, holder: Holder) -> int:
        """At least the last one: it is computed in any case."""
        return max(1, self.num_prompt_tokens - self.num_known_tokens.get(holder, 0))


class InstanceView(NamedTuple):
    """An instance's last snapshot, plus what was dispatched to it since; made of every instance for every decision.

    `num_queued_tokens`: to be prefilled before a new request is. `num_committed_blocks`: needed now by the
    requests that run there or are on their way there. `unreachable`: no KV gets from here to there now.
    `prefill_tokens_per_s`, `decode_step_s`: as measured there of late; 0 before there is anything to say.
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
    prefill_tokens_per_s: float = 0.0
    decode_step_s: float = 0.0

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


class Forecast(Protocol):
    """How long KV takes from instance to instance, with what is in flight now; asked anew for every decision.

    0 within one instance, inf where no KV gets through. Of a pair of which nothing is known: the median of those that
    are known, so that nothing speaks for it or against it; 0 as long as nothing is known at all.
    """

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        """Of the KV of so many tokens, beginning now."""
        ...

    def transfers_s(self, sources: Sequence[Holder], targets: Sequence[Holder], num_tokens: Matrix) -> Matrix:
        """The same for all pairs at once; `num_tokens`: [num_sources, num_targets]. Whoever can say it faster does."""
        times_s = [
            [self.transfer_s(source, target, int(count)) for target, count in zip(targets, row, strict=True)]
            for source, row in zip(sources, num_tokens, strict=True)
        ]
        return np.array(times_s, float).reshape(num_tokens.shape)


class KnowsNothing(Forecast):
    """Before anything is measured."""

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        return 0.0

    def transfers_s(self, sources: Sequence[Holder], targets: Sequence[Holder], num_tokens: Matrix) -> Matrix:
        return np.zeros(num_tokens.shape)


class DispatchPolicy(Protocol):
    def select(self, request: RequestView, instances: Sequence[InstanceView], forecast: Forecast) -> Decision | None:
        """None: not now; the request waits in the queue."""
