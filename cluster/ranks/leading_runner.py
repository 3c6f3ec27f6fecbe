"""Rank 0's runner: what it computes, the other ranks compute with it."""

from typing import Protocol

from torch import Tensor

from cluster.engine.scheduler_output import SampledToken
from cluster.model.batch import Batch
from cluster.model.decoder import Decoder
from cluster.model.gpu_options import GpuOptions
from cluster.model.kv_cache import KVCache
from cluster.model.runner import ModelRunner
from cluster.ranks.step_frame import StepEncoder


class Followers(Protocol):
    """The other ranks."""

    def tell(self, frame: bytes) -> None:
        """All of them. Raises RankLost."""
        ...

    def raise_if_lost(self) -> None:
        """After an error in a step: raises RankLost if it came because one is lost."""
        ...

    def raise_known_loss(self) -> None:
        """Raises RankLost if one is known to be lost."""
        ...


class LeadingRunner(ModelRunner):
    """Its methods raise RankLost too, and then nothing can be run again."""

    def __init__(
        self,
        model: Decoder,
        kv_cache: KVCache,
        gpu: GpuOptions = GpuOptions(),  # noqa: B008  # frozen
        *,
        followers: Followers,
    ) -> None:
        super().__init__(model, kv_cache, gpu)
        self._followers = followers
        self._encoder = StepEncoder()

    def collect(self) -> list[SampledToken]:
        try:
            sampled = super().collect()
        except RuntimeError:
            self._followers.raise_if_lost()
            raise
        except ArithmeticError:
            self._followers.raise_known_loss()
            raise
        self._followers.raise_known_loss()  # on a GPU a collective that was aborted looks complete
        return sampled

    def compute(self, batch: Batch) -> Tensor | None:
        self._followers.tell(self._encoder.encode(batch))
        try:
            return super().compute(batch)
        except RuntimeError:
            self._followers.raise_if_lost()
            raise
