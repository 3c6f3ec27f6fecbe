"""A request as its client sees it, as long as it is under way."""

from dataclasses import dataclass
from math import nan
from typing import Protocol

from cluster.messages import SequenceState
from deploy.simulator.recorder import Recorder, RequestRecord
from deploy.workload.request import WorkloadRequest


class Counted(Protocol):
    """Who counts the tokens that clients have been seen to have and the ledger has not been told of."""

    num_untold: int


@dataclass(slots=True, kw_only=True, eq=False)
class Client:
    """`num_tokens`: that it has been seen to have by `last_s`; the ledger may not know of all of them yet.

    `num_told`: of which the ledger has told; `counted` counts the others.
    """

    number: int
    request: WorkloadRequest
    state: SequenceState
    block_hashes: tuple[bytes, ...]
    arrival_s: float
    first_s: float = nan
    second_s: float = nan
    last_s: float = nan
    num_tokens: int = 0
    num_told: int = 0
    num_cached_tokens: int = 0
    num_handovers: int = 0
    num_recoveries: int = 0
    prefilled_on: str = ""
    decoded_on: str = ""
    counted: Counted | None = None

    def hear(self, num_tokens: int, now_s: float, recorder: Recorder) -> None:
        """It has so many tokens now; what came together counts as one piece."""
        if num_tokens <= self.num_tokens:
            return
        if self.num_tokens:
            recorder.waited(now_s - self.last_s, 1)
        else:
            self.first_s = now_s
        if self.num_tokens < 2 <= num_tokens:
            self.second_s = now_s
        self.num_tokens, self.last_s = num_tokens, now_s

    def told(self, num_tokens: int) -> None:
        """The ledger has told of so many in all; the others, if it is over, count no more."""
        if self.counted is not None:
            self.counted.num_untold -= min(num_tokens, self.num_tokens) - self.num_told
        self.num_told = num_tokens

    def record(self, error: str = "") -> RequestRecord:
        return RequestRecord(
            number=self.number,
            arrival_s=self.arrival_s,
            first_token_s=self.first_s,
            second_token_s=self.second_s,
            last_token_s=self.last_s,
            num_prompt_tokens=self.request.num_prompt_tokens,
            num_output_tokens=self.num_tokens,
            num_asked_tokens=self.request.num_output_tokens,
            num_cached_tokens=self.num_cached_tokens,
            num_handovers=self.num_handovers,
            num_recoveries=self.num_recoveries,
            prefilled_on=self.prefilled_on,
            decoded_on=self.decoded_on,
            error=error,
        )
