"""How long a transfer takes over one link that it has to itself."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkModel:
    """A transfer of n bytes takes `alpha_s + n / beta_bytes_per_s`.

    `residual`: what half of the samples stay below, as |measured - predicted| / predicted.
    """

    alpha_s: float
    beta_bytes_per_s: float
    residual: float = 0.0

    def seconds(self, num_bytes: float) -> float:
        return self.alpha_s + num_bytes / self.beta_bytes_per_s


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferSample:
    """A transfer that was timed. `share`: of the link's rate that it could have, next to what else was in flight."""

    num_bytes: int
    seconds: float
    share: float = 1.0
