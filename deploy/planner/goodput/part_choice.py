"""What could fill a class of nodes: all units that were tried there."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.best_first import RESOLUTION, Tried
from deploy.planner.goodput.whole import Part

_NUM_RIVALS = 4
_NEAR = 0.1  # so much less attainment, at what others serve, is near; or less per GPU by this share


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

    def rivals(self, wanted: float) -> list[Part]:
        """Other splits than the best, which nearly served as much per GPU: copies of them side by side may serve more,
        as what comes is shared by more instances. `wanted`: attainment.
        """
        best = max(self._serving, key=lambda each: each.per_gpu, default=None)
        if best is None:
            return []
        kept_up = min(best.per_gpu, best.bound_per_gpu)

        def is_near(each: Tried) -> bool:
            if each.bound_per_gpu <= kept_up * (1.0 + RESOLUTION):
                return False
            if each.answer.rate is None:
                return each.answer.attainment.both >= wanted - _NEAR
            return each.per_gpu >= kept_up * (1.0 - _NEAR)

        split = best.candidate.unit.split
        near = [each for each in self.tried if each.candidate.unit.split != split and is_near(each)]
        near.sort(key=lambda each: each.rank, reverse=True)
        return [part for each in near[:_NUM_RIVALS] if (part := self._part(each)) is not None]

    @property
    def _serving(self) -> list[Tried]:
        return [each for each in self.tried if each.answer.rate]

    def _total(self, tried: Tried) -> float:
        return self.num_gpus // tried.candidate.unit.num_gpus * (tried.answer.rate or 0.0)

    def _part(self, tried: Tried | None) -> Part | None:
        if tried is None:
            return None
        goodput = tried.answer.rate or tried.above  # nearly so much, where it was not more
        return Part(unit=tried.candidate.unit, goodput=goodput, nodes=self.nodes, num_gpus=self.num_gpus)
