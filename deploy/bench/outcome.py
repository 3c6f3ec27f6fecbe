"""What became of one request of a benchmark."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class Outcome:
    """Times in seconds of one clock. `token_times_s`: when each piece of the stream came, of one token or several."""

    num_prompt_tokens: int
    start_s: float
    token_times_s: list[float] = field(default_factory=list)
    num_output_tokens: int = 0
    error: str = ""

    @property
    def is_success(self) -> bool:
        return not self.error

    @property
    def ttft_s(self) -> float:
        return self.token_times_s[0] - self.start_s

    @property
    def e2el_s(self) -> float:
        return self.token_times_s[-1] - self.start_s

    @property
    def tpot_s(self) -> float | None:
        """None for a single token, which has no time between tokens."""
        return (self.e2el_s - self.ttft_s) / (self.num_output_tokens - 1) if self.num_output_tokens > 1 else None

    @property
    def itls_s(self) -> list[float]:
        return [after - before for before, after in zip(self.token_times_s, self.token_times_s[1:], strict=False)]
