"""What the search asks of whoever can tell what a layout does, and what it is told."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.layout import Layout


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Ask:
    """The highest rate at which the layout meets the SLOs, if it does at `above`.

    `at_most`: what it can serve in the long run; as much as `above`: no more is asked for.
    `expected`: about there; None: not known. `phase`: None: both; else only that one counts, the other is for nothing.
    `is_rough`: the plan is looked at again: how far beyond `at_most` a short trial gets does not matter.
    """

    layout: Layout
    above: float = 0.0
    at_most: float
    expected: float | None = None
    phase: str | None = None
    is_rough: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """`rate`: None: it does not meet them even at `above`. `attainment`: at the rate, or there.

    `is_beyond`: the SLOs do not tell, as no trial lasted for long enough: it is more than can be served in the long
    run, or more still would meet them.
    """

    rate: float | None
    attainment: Attainment
    is_beyond: bool = False


Evaluate = Callable[[Sequence[Ask]], list[Answer]]
