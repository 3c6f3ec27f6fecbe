"""What was simulated for one network and is about the same on another: what sends no KV from node to node."""

from collections.abc import Sequence
from dataclasses import dataclass

from deploy.planner.goodput.evaluation import Answer, Ask, Evaluate
from deploy.planner.goodput.layout import Layout


@dataclass(slots=True)
class _Known:
    """`answer`: with a rate, that is what it serves; else it is what was found at `above`."""

    answer: Answer
    above: float

    def for_ask(self, ask: Ask) -> Answer | None:
        """None: that is not known."""
        if self.answer.rate is None:
            return self.answer if ask.above >= self.above else None
        if self.answer.rate > ask.above:
            return self.answer
        return Answer(rate=None, attainment=self.answer.attainment)


class Memory:
    """Of layouts on one node, and of colocated instances, whose requests seldom move: across the networks of one case,
    or the searches of one plan.

    For a search only: what is found is simulated again on its own network.
    """

    def __init__(self) -> None:
        self._known: dict[object, _Known] = {}

    def beside(self, evaluate: Evaluate) -> Evaluate:
        """The same, which asks only for what is not known."""

        def remembering(asks: Sequence[Ask]) -> list[Answer]:
            found = [self._find(ask) for ask in asks]
            missing = [ask for ask, known in zip(asks, found, strict=True) if known is None]
            answers = iter(evaluate(missing))
            return [
                self._keep(ask, next(answers)) if known is None else known
                for ask, known in zip(asks, found, strict=True)
            ]

        return remembering

    def _find(self, ask: Ask) -> Answer | None:
        known = self._known.get(_key(ask)) if _sends_nothing(ask.layout) else None
        return None if known is None else known.for_ask(ask)

    def _keep(self, ask: Ask, answer: Answer) -> Answer:
        if _sends_nothing(ask.layout):
            self._known[_key(ask)] = _Known(answer, ask.above)
        return answer


def _sends_nothing(layout: Layout) -> bool:
    return layout.num_nodes == 1 or layout.unit.is_mixed


def _key(ask: Ask) -> object:
    """On one node it only matters how many there are of each, and over which link they send.

    Who was asked for one rate has not told what it serves at most.
    """
    links, is_free = ask.layout.topology, ask.at_most > ask.above
    return ask.layout.unit, ask.phase, is_free, float(links.alpha_s[0, 0]), float(links.beta_bytes_per_s[0, 0])
