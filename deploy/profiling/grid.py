"""Which steps are timed: enough of each kind to tell its coefficients apart, within what the engine holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from deploy.profiling.timed_steps import Step

LEAST_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`num_blocks` of `block_size` tokens hold the KV of a step; a sequence has `max_model_len` tokens at most."""

    max_prompt_tokens: int
    max_batch: int
    max_model_len: int
    num_blocks: int
    block_size: int

    def allow(self, step: Step) -> bool:
        longest = max(start + num_tokens for start, num_tokens in step.spans)
        return longest < self.max_model_len and step.num_blocks(self.block_size) <= self.num_blocks


def grid(limits: Limits) -> dict[str, list[Step]]:
    """By kind: whole prompts (alone and two together), later chunks of prompts, decodes, and prompts among decodes."""
    kinds = {"prefill": _prefills, "chunk": _chunks, "decode": _decodes, "mixed": _mixed}
    return {kind: [step for step in make(limits) if limits.allow(step)] for kind, make in kinds.items()}


def _prefills(limits: Limits) -> Iterator[Step]:
    for length in _doubling(LEAST_TOKENS, limits.max_prompt_tokens):
        yield Step(((0, length),))
        if 2 * length <= limits.max_prompt_tokens:
            yield Step(((0, length), (0, length)))


def _chunks(limits: Limits) -> Iterator[Step]:
    for start in _quadrupling(8 * LEAST_TOKENS, limits.max_model_len):
        for length in _quadrupling(2 * LEAST_TOKENS, limits.max_prompt_tokens // 2):
            yield Step(((start, length),))


def _decodes(limits: Limits) -> Iterator[Step]:
    batches = sorted({*_doubling(1, limits.max_batch), *_doubling(3, limits.max_batch), limits.max_batch})
    for batch in batches:
        for context in _contexts(limits):
            yield Step(((context - 1, 1),) * batch)


def _mixed(limits: Limits) -> Iterator[Step]:
    for batch in _quadrupling(1, limits.max_batch):
        for context in _contexts(limits)[1:3]:
            for length in _quadrupling(LEAST_TOKENS, limits.max_prompt_tokens // 4):
                yield Step((*((context - 1, 1),) * batch, (0, length)))


def _contexts(limits: Limits) -> list[int]:
    return _quadrupling(2 * LEAST_TOKENS, limits.max_model_len - 1)


def _doubling(first: int, last: int) -> list[int]:
    return [first << power for power in range(last.bit_length()) if first << power <= last]


def _quadrupling(first: int, last: int) -> list[int]:
    return _doubling(first, last)[::2]
