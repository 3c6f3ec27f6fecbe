"""Moves everything away from the instances that are being drained, and nothing else."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cluster.messages import Holder
from router.policies.interface import Forecast
from router.policies.rescheduling import InstanceLoad, Move, RequestLoad, ReschedulingConfig
from router.policies.virtual_usage import Usage, has_room

# A target that has so much of what the freest has is about as free: the nearest of these is taken.
_ABOUT_AS_FREE = 0.75


class DrainOnly:
    def __init__(self, config: ReschedulingConfig) -> None:
        self._config = config

    def plan(self, instances: Sequence[InstanceLoad], forecast: Forecast) -> list[Move]:
        picture = Picture(instances, self._config.max_handovers_per_instance, forecast)
        plan_drains(picture)
        return picture.moves


class Picture:
    """The instances as they will be when the moves planned so far are done."""

    def __init__(self, instances: Sequence[InstanceLoad], max_handovers_per_instance: int, forecast: Forecast) -> None:
        self.moves: list[Move] = []
        self._instances = {instance.holder: instance for instance in instances}
        self._usages = {instance.holder: Usage.of(instance) for instance in instances}
        self._max_handovers = max_handovers_per_instance
        self._forecast = forecast

    def usage(self, instance: InstanceLoad) -> Usage:
        return self._usages[instance.holder]

    def freeness_steps(self, instance: InstanceLoad) -> float:
        return self._usages[instance.holder].freeness_steps

    def has_free_hand(self, instance: InstanceLoad) -> bool:
        """Whether another handover may begin there."""
        return instance.num_moving < self._max_handovers

    def free_hands(self) -> list[InstanceLoad]:
        """The least free first."""
        return sorted(
            filter(self.has_free_hand, self._instances.values()),
            key=lambda instance: (self.freeness_steps(instance), instance.holder.instance),
        )

    def target(self, source: InstanceLoad, request: RequestLoad, max_move_s: float = math.inf) -> InstanceLoad | None:
        """Of those with room for it that it gets to soon enough: the nearest of the most free."""
        roomy = [
            instance
            for instance in reversed(self.free_hands())
            if instance.can_decode
            and instance.kv_layout == source.kv_layout
            and not instance.is_draining
            and instance.holder != source.holder
            and has_room(instance, request)
        ]
        moves_s = self._moves_s(request, source, roomy)
        fits = [it for it in roomy if moves_s[it.holder] < math.inf and moves_s[it.holder] <= max_move_s]
        if not fits:
            return None
        most = self.freeness_steps(fits[0])
        enough = most - (1.0 - _ABOUT_AS_FREE) * abs(most)
        about = [instance for instance in fits if self.freeness_steps(instance) >= enough]
        return min(about, key=lambda it: moves_s[it.holder])

    def move_s(self, request: RequestLoad, source: InstanceLoad, target: InstanceLoad) -> float:
        return self._moves_s(request, source, [target])[target.holder]

    def _moves_s(
        self, request: RequestLoad, source: InstanceLoad, targets: Sequence[InstanceLoad]
    ) -> dict[Holder, float]:
        """Until all its KV is there, asked for all at once; what waits for its first step has none."""
        holders = [target.holder for target in targets]
        if request.is_queued or not holders:
            return dict.fromkeys(holders, 0.0)
        num_tokens = np.full((1, len(holders)), float(request.num_tokens))
        times_s = self._forecast.transfers_s([source.holder], holders, num_tokens)[0]
        return dict(zip(holders, times_s.tolist(), strict=True))

    def move(self, request: RequestLoad, source: InstanceLoad, target: InstanceLoad, reason: str) -> None:
        self.moves.append(
            Move(request_id=request.request_id, source=source.holder, target=target.holder, reason=reason)
        )
        left = tuple(it for it in source.requests if it.request_id != request.request_id)
        come = (*target.requests, replace(request, can_move=False, is_queued=False))
        self._put(replace(source, requests=left, num_moving=source.num_moving + 1))
        self._put(replace(target, requests=come, num_moving=target.num_moving + 1))

    def _put(self, instance: InstanceLoad) -> None:
        self._instances[instance.holder] = instance
        self._usages[instance.holder] = Usage.of(instance)

    def __getitem__(self, holder: Holder) -> InstanceLoad:
        return self._instances[holder]


def plan_drains(picture: Picture) -> None:
    draining = [instance.holder for instance in picture.free_hands() if instance.is_draining]
    for holder in draining:
        while _moves_one(picture, picture[holder]):
            pass


def _moves_one(picture: Picture, source: InstanceLoad) -> bool:
    """The cheapest request that fits anywhere, to the nearest of the most free instances that it fits into."""
    if not picture.has_free_hand(source):
        return False
    for request in sorted(victims(source), key=_was_just_tried):
        if (target := picture.target(source, request)) is not None:
            picture.move(request, source, target, "drain")
            return True
    return False


def _was_just_tried(request: RequestLoad) -> bool:
    """And is still here: one that cannot leave must not hold up the others."""
    return request.num_rounds_since_move in (0, 1)


def victims(source: InstanceLoad) -> list[RequestLoad]:
    """Those that may leave, by what it costs: the unimportant first, then those with the fewest blocks to move.

    Over any link, the fewest take the least time.
    """
    movable = [request for request in source.requests if request.can_move]
    return sorted(movable, key=lambda it: (it.priority, source.num_blocks_of(it), it.request_id))
