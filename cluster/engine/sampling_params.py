"""How the next token is chosen and when to stop: what an engine needs, all defaults resolved."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingParams:
    """`temperature` 0 is greedy; `top_k` 0 is off; `logprobs` None is none, k is of the chosen token and the k best.

    `stop_token_ids` holds the eos ids of the model too, unless the client asked to ignore them. Stop strings are the
    front's.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    seed: int = 0
    max_tokens: int = 16
    stop_token_ids: frozenset[int] = frozenset()
    logprobs: int | None = None
