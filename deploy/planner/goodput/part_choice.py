"""What could fill a class of nodes: all units that were tried there."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.whole import Part


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PartChoice:
    """`num_gpus`: the nodes have GPUs for so many."""

    kinds: tuple[str, ...]
    nodes: tuple[str, ...]
    num_gpus: int
    tried: Sequence[Tried]

    @property
    def best(self) -> Part | None:
        """With most per GPU; None: nothing serves."""
        return self._part(max(self._serving, key=lambda each: each.per_gpu, default=None))

    @property
    def fullest(self) -> Part | None:
        """With most in all, of as many copies as there are GPUs for."""
        return self._part(max(self._serving, key=self._total, default=None))

    @property
    def _serving(self) -> list[Tried]:
        return [each for each in self.tried if each.answer.rate]

    def _total(self, tried: Tried) -> float:
        return self.num_gpus // tried.candidate.unit.num_gpus * (tried.answer.rate or 0.0)

    def _part(self, tried: Tried | None) -> Part | None:
        if tried is None:
            return None
        return Part(
            unit=tried.candidate.unit, goodput=tried.answer.rate or 0.0, nodes=self.nodes, num_gpus=self.num_gpus
        )
