"""Rank 0's runner: what it computes, the other ranks compute with it."""

from typing import Protocol

from torch import Tensor

from cluster.model.batch import Batch
from cluster.model.decoder import Decoder
from cluster.model.kv_cache import KVCache
from cluster.model.runner import ModelRunner
from cluster.ranks.step_frame import encode


class Followers(Protocol):
    """The other ranks."""

    def tell(self, frame: bytes) -> None:
        """All of them. Raises RankLost."""
        ...

    def raise_if_lost(self) -> None:
        """After an error in a step: raises RankLost if it came because one is lost."""
        ...


class LeadingRunner(ModelRunner):
    """Its `run` raises RankLost too, and then nothing can be run again."""

    def __init__(self, model: Decoder, kv_cache: KVCache, followers: Followers) -> None:
        super().__init__(model, kv_cache)
        self._followers = followers

    def compute(self, batch: Batch) -> Tensor | None:
        self._followers.tell(encode(batch))
        try:
            return super().compute(batch)
        except RuntimeError:
            self._followers.raise_if_lost()
            raise
