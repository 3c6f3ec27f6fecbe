"""What one step computes, as a latency model sees it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepShape:
    """Prompts, or chunks of them, and sequences that decode one token each.

    `prefill_squares`: the sum of end² - start² over the chunks, so Σ len² of whole prompts; attention is in proportion
    to it. `decode_context`: the tokens of KV that the decoding sequences read in all, the ones computed here included.
    """

    num_prefill_tokens: int = 0
    prefill_squares: float = 0.0
    num_decodes: int = 0
    decode_context: int = 0
