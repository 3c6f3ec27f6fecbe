"""What became of each simulated request: told once, when it is over, and kept by nobody but the recorder."""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """Times in seconds of the simulation, as the client sees them; nan for a token that never came.

    `number` counts the requests from 0. `prefilled_on`, `decoded_on`: where the first and the last token came from.
    `num_asked_tokens`: of output; with fewer it ended because nobody had room for more KV.
    """

    number: int
    arrival_s: float
    first_token_s: float
    second_token_s: float
    last_token_s: float
    num_prompt_tokens: int
    num_output_tokens: int
    num_asked_tokens: int
    num_cached_tokens: int = 0
    num_handovers: int = 0
    num_recoveries: int = 0
    prefilled_on: str = ""
    decoded_on: str = ""
    error: str = ""

    @property
    def is_cut_short(self) -> bool:
        """It has ended, but with less than what was asked for."""
        return not self.error and self.num_output_tokens < self.num_asked_tokens


class Recorder(Protocol):
    def ended(self, record: RequestRecord) -> None:
        """A request is over: finished, or failed with an error."""

    def waited(self, seconds: float, count: int) -> None:
        """So many clients waited so long from one token to the next, the second token included."""
