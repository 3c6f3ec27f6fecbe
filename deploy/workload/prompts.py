"""Prompts made to measure: token ids drawn by seed, equal where the trace says that prefixes are."""

from collections.abc import Collection, Sequence

import numpy as np

from deploy.workload.request import WorkloadRequest

_TAIL = 1 << 32  # keeps the stream of a request's own tokens apart from those of the hash ids


class PromptMaker:
    """Draws from the vocabulary without `special_token_ids`; equal arguments make equal prompts."""

    def __init__(self, vocab_size: int, special_token_ids: Collection[int] = (), seed: int = 0) -> None:
        special = set(special_token_ids)
        self._ids = np.array([token_id for token_id in range(vocab_size) if token_id not in special])
        self._seed = seed

    def make(self, requests: Sequence[WorkloadRequest]) -> list[list[int]]:
        return [self._prompt(index, request) for index, request in enumerate(requests)]

    def _prompt(self, index: int, request: WorkloadRequest) -> list[int]:
        tokens: list[int] = []
        for hash_id in request.hash_ids:
            if len(tokens) >= request.num_prompt_tokens:
                break
            tokens += self._draw(hash_id, request.hash_block_tokens)
        del tokens[request.num_prompt_tokens :]
        return tokens + self._draw(_TAIL + index, request.num_prompt_tokens - len(tokens))

    def _draw(self, stream: int, num_tokens: int) -> list[int]:
        generator = np.random.default_rng([self._seed, stream])
        drawn: list[int] = self._ids[generator.integers(len(self._ids), size=num_tokens)].tolist()
        return drawn
