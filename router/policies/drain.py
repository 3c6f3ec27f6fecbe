"""Moves everything away from the instances that are being drained, and nothing else."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from cluster.messages import Holder
from router.policies.rescheduling import InstanceLoad, Move, RequestLoad, ReschedulingConfig
from router.policies.virtual_usage import Usage, has_room


class DrainOnly:
    def __init__(self, config: ReschedulingConfig) -> None:
        self._config = config

    def plan(self, instances: Sequence[InstanceLoad]) -> list[Move]:
        picture = Picture(instances, self._config.max_handovers_per_instance)
        plan_drains(picture)
        return picture.moves


class Picture:
    """The instances as they will be when the moves planned so far are done."""

    def __init__(self, instances: Sequence[InstanceLoad], max_handovers_per_instance: int) -> None:
        self.moves: list[Move] = []
        self._instances = {instance.holder: instance for instance in instances}
        self._usages = {instance.holder: Usage.of(instance) for instance in instances}
        self._max_handovers = max_handovers_per_instance

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

    def targets(self, source: InstanceLoad) -> Iterator[InstanceLoad]:
        """Where the source's requests could run, the most free first."""
        for instance in reversed(self.free_hands()):
            fits = instance.can_decode and instance.kv_layout == source.kv_layout
            if fits and not instance.is_draining and instance.holder != source.holder:
                yield instance

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
    """The cheapest request that fits anywhere, to the most free instance that it fits into."""
    if not picture.has_free_hand(source):
        return False
    for request in sorted(victims(source), key=_was_just_tried):
        for target in picture.targets(source):
            if has_room(target, request):
                picture.move(request, source, target, "drain")
                return True
    return False


def _was_just_tried(request: RequestLoad) -> bool:
    """And is still here: one that cannot leave must not hold up the others."""
    return request.num_rounds_since_move in (0, 1)


def victims(source: InstanceLoad) -> list[RequestLoad]:
    """Those that may leave, by what it costs: the unimportant first, then those with the fewest blocks to move."""
    movable = [request for request in source.requests if request.can_move]
    return sorted(movable, key=lambda it: (it.priority, source.num_blocks_of(it), it.request_id))
