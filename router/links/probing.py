"""Instances are asked to probe links, and their answers come back."""

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from cluster.messages import FrontMessage, Holder, Probe, Probed
from cluster.topology.schedule import Pair
from router.links.places import Places
from router.links.probe_plan import ProbeConfig, ProbePlan, Wishes


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """Not answered yet."""

    pair: Pair
    source: Holder
    target: Holder
    late_s: float


class ProbeOrder:
    """What an operator wants probed now: `pairs` are not done yet."""

    def __init__(self, pairs: Iterable[Pair], budget_s: float) -> None:
        self.pairs = dict.fromkeys(pairs)
        self.budget_s = budget_s
        self.num_failed = 0
        self.changed = asyncio.Event()

    def done(self, pair: Pair, error: str) -> None:
        if pair in self.pairs:
            del self.pairs[pair]
            self.num_failed += bool(error)
            self.changed.set()


class Probing:
    """`tell` sends to an instance. Times are passed in."""

    def __init__(self, config: ProbeConfig, places: Places, tell: Callable[[Holder, FrontMessage], None]) -> None:
        self._config, self._places, self._tell = config, places, tell
        self.plan = ProbePlan(config)
        self._asked: dict[int, _Asked] = {}
        self._failures: dict[Pair, Counter[Holder]] = {}  # since the pair was probed last without one
        self._num_asked = 0
        self._orders: list[ProbeOrder] = []
        self._probed_for: dict[Pair, list[ProbeOrder]] = {}  # by the probe that is under way

    def order(self, budget_s: float) -> ProbeOrder:
        """0: with the usual budget."""
        order = ProbeOrder(self._places.pairs, budget_s or self._config.budget_s)
        self._orders.append(order)
        return order

    def withdraw(self, order: ProbeOrder) -> None:
        self._orders.remove(order)

    @property
    def ordered(self) -> list[Pair]:
        return [pair for order in self._orders for pair in order.pairs]

    def begin(self, wishes: Wishes, busy: set[str], now_s: float) -> None:
        for pair in list(self.plan.begin(wishes, busy, now_s)):
            self._ask(pair, now_s)

    def _ask(self, pair: Pair, now_s: float) -> None:
        source, target = (member.place for member in self._places.ends(pair, self._failures.get(pair, {})))
        self._probed_for[pair] = orders = [order for order in self._orders if pair in order.pairs]
        budget_s = max((order.budget_s for order in orders), default=self._config.budget_s)
        late_s = now_s + budget_s + self._config.answer_timeout_s
        self._num_asked += 1
        number = self._num_asked
        self._asked[number] = _Asked(pair=pair, source=source.holder, target=target.holder, late_s=late_s)
        probe = Probe(number=number, target=target.holder, link_address=target.link_address, budget_s=budget_s)
        self._tell(source.holder, probe)

    def answered(self, holder: Holder, message: Probed) -> Pair | None:
        """Whose turn is over then; None: nobody waits for this. To be followed by `end`."""
        asked = self._asked.get(message.number)
        if asked is None or asked.source != holder:
            return None
        del self._asked[message.number]
        if message.error:
            self._failed(asked)
        else:
            self._failures.pop(asked.pair, None)
        return asked.pair

    def _failed(self, asked: _Asked) -> None:
        """It may be one of the two and not the way: others on their nodes are asked next."""
        self._failures.setdefault(asked.pair, Counter()).update((asked.source, asked.target))

    def end(
        self, pair: Pair, now_s: float, *, error: str = "", has_way: bool | None = True, is_degraded: bool = False
    ) -> None:
        self.plan.end(pair, now_s, error=error, has_way=has_way, is_degraded=is_degraded)
        for order in self._probed_for.pop(pair, ()):
            order.done(pair, error)

    def give_up_late(self, now_s: float) -> None:
        for number, asked in list(self._asked.items()):
            if now_s >= asked.late_s:
                del self._asked[number]
                self._failed(asked)
                self.end(asked.pair, now_s, error="the probe was not answered", has_way=None)

    def lost(self, holder: Holder) -> None:
        """What it was to do, or to be probed for, is left; somebody else on its node may."""
        for number, asked in list(self._asked.items()):
            if holder in (asked.source, asked.target):
                del self._asked[number]
                self.plan.withdraw(asked.pair)
        self._failures = {pair: it for pair, it in self._failures.items() if pair in self._places.pairs}
        for failures in self._failures.values():
            failures.pop(holder, None)
        for order in self._orders:
            for pair in [pair for pair in order.pairs if pair not in self._places.pairs]:
                order.done(pair, "no instance is there any more")
