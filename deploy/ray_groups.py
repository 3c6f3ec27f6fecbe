"""Places in a Ray cluster: a placement group for each instance, pinned to its node, with a bundle for each rank.

One each, since the bundles of a group come and go together, and an instance has to be able to move alone. A group is
its instance's from life to life, so that nobody else takes its place meanwhile; all end with the controller.
"""

import asyncio
from dataclasses import dataclass
from typing import Any

from ray.exceptions import RayError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from deploy.errors import MemberFailed
from deploy.ray_nodes import RayNode
from deploy.target import InstanceTarget, resources

_READY_TIMEOUT_S = 15.0
_ANY = 0.001  # of the resource that every node has: a bundle may not be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    node: RayNode
    target: InstanceTarget
    group: PlacementGroup


class PlacementGroups:
    def __init__(self) -> None:
        self._places: dict[str, _Place] = {}
        self._left: dict[str, list[_Place]] = {}
        self._packed: dict[str, PlacementGroup] = {}

    async def reserve(self, target: InstanceTarget, node: RayNode) -> None:
        """What it had on another node stays its own until its next life begins. MemberFailed: Ray does not give it."""
        before, left = self._places.get(target.name), self._left.get(target.name, [])
        if before is not None and before.node.node_id == node.node_id:
            return
        place = next((place for place in left if place.node.node_id == node.node_id), None)
        if place is None:
            place = await self._make(target, node)
        else:
            left.remove(place)
        self._places[target.name] = place
        if before is not None:
            self._left.setdefault(target.name, []).append(before)

    def release(self, target: InstanceTarget, node: str) -> None:
        """Its place there, as long as it has another."""
        left = self._left.get(target.name, [])
        if left and self._places[target.name].node.name == node:
            self._places[target.name], left[-1] = left[-1], self._places[target.name]
        for place in [place for place in left if place.node.name == node]:
            left.remove(place)
            remove_placement_group(place.group)

    async def _make(self, target: InstanceTarget, node: RayNode) -> _Place:
        bundles = [_bundle(target.of_a_rank, node)] * target.num_ranks
        group = placement_group(bundles, bundle_label_selector=[{"ray.io/node-id": node.node_id}] * len(bundles))
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await group.ready()
        except (RayError, TimeoutError) as error:
            remove_placement_group(group)
            wanted = ", ".join(f"{amount:g} {resource}" for resource, amount in resources([target]).items())
            message = f"Ray has not given it a place on {node.name} ({wanted}) within {_READY_TIMEOUT_S:.0f} s"
            raise MemberFailed(message) from error
        return _Place(node=node, target=target, group=group)

    def options(self, target: InstanceTarget) -> list[dict[str, Any]]:
        """For the actors of its next life, one for each rank; [] where nothing is reserved."""
        for place in self._left.pop(target.name, ()):
            remove_placement_group(place.group)
        if target.name not in self._places:
            return []
        return _in_bundles(self._places[target.name].group, target.num_ranks)

    def together(self, target: InstanceTarget) -> list[dict[str, Any]]:
        """For the actors of an instance that Ray places, one for each rank: on one node, whichever it is.

        The group is forgotten with the instance's last life, when the controller ends.
        """
        group = self._packed.get(target.name)
        if group is None:
            bundles = [resources([target.of_a_rank]) or {"CPU": _ANY}] * target.num_ranks
            group = self._packed[target.name] = placement_group(bundles, strategy="STRICT_PACK")
        return _in_bundles(group, target.num_ranks)

    def on(self, node: RayNode) -> list[InstanceTarget]:
        """Those who have a place there: twice who has two."""
        every = [*self._places.values(), *(place for left in self._left.values() for place in left)]
        return [place.target for place in every if place.node.node_id == node.node_id]


def _in_bundles(group: PlacementGroup, count: int) -> list[dict[str, Any]]:
    return [
        {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)}
        for index in range(count)
    ]


def _bundle(target: InstanceTarget, node: RayNode) -> dict[str, float]:
    return resources([target]) or {f"node:{node.address}": _ANY}
