"""Llumnix's load balance (OSDI'24, section 4.4.3): from the least free instance to the most free, pair by pair.

A pair is made only where it brings the two strictly closer together. A request does not wander: it stays a while where
it came to, does not go back for little, and never makes its target an instance that would have to give it away again.
"""

from collections.abc import Sequence

from router.policies.drain import Picture, plan_drains, victims
from router.policies.interface import Forecast
from router.policies.rescheduling import InstanceLoad, Move, RequestLoad, ReschedulingConfig
from router.policies.virtual_usage import has_room, spread_steps


class LoadBalance:
    """Instances that are being drained come first: their infinite request makes them the least free of all."""

    def __init__(self, config: ReschedulingConfig) -> None:
        self._config = config

    def plan(self, instances: Sequence[InstanceLoad], forecast: Forecast) -> list[Move]:
        picture = Picture(instances, self._config.max_handovers_per_instance, forecast)
        plan_drains(picture)
        for source in picture.free_hands():
            if not source.is_draining and picture.freeness_steps(source) < self._config.source_below_steps:
                self._relieve(picture, source)
        return picture.moves

    def _relieve(self, picture: Picture, source: InstanceLoad) -> None:
        """One request in a round: what it changes is seen before the next."""
        current = picture[source.holder]
        if not picture.has_free_hand(current):
            return  # it has become a target meanwhile
        requests = [request for request in victims(current) if self._may_leave(request)]
        if not requests:
            return
        soonest = min(requests, key=lambda request: request.num_tokens)
        target = picture.target(current, soonest, self._config.max_move_s)
        if target is None or picture.freeness_steps(target) <= self._config.target_above_steps:
            return
        for request in requests:
            improves = self._improves(picture, request, current, target)
            if improves and picture.move_s(request, current, target) <= self._config.max_move_s:
                picture.move(request, current, target, "balance")
                return

    def _may_leave(self, request: RequestLoad) -> bool:
        since = request.num_rounds_since_move
        return not request.is_queued and (since is None or since >= self._config.cooldown_rounds)

    def _improves(self, picture: Picture, request: RequestLoad, source: InstanceLoad, target: InstanceLoad) -> bool:
        before = spread_steps(picture.usage(source), picture.usage(target))
        left = picture.usage(source).changed(-source.num_blocks_of(request), -1)
        come = picture.usage(target).changed(target.num_blocks_of(request), 1)
        gain = before - spread_steps(left, come)
        needed = self._config.margin_steps if request.came_from == target.holder else 0.0
        stays_free = come.freeness_steps >= self._config.source_below_steps
        return gain > needed and stays_free and has_room(target, request)
