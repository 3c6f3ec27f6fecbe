"""Places in a Ray cluster: a placement group of one bundle for each instance, pinned to its node.

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
        group = placement_group([_bundle(target, node)], bundle_label_selector=[{"ray.io/node-id": node.node_id}])
        try:
            async with asyncio.timeout(_READY_TIMEOUT_S):
                await group.ready()
        except (RayError, TimeoutError) as error:
            remove_placement_group(group)
            wanted = ", ".join(f"{amount:g} {resource}" for resource, amount in resources([target]).items())
            message = f"Ray has not given it a place on {node.name} ({wanted}) within {_READY_TIMEOUT_S:.0f} s"
            raise MemberFailed(message) from error
        return _Place(node=node, target=target, group=group)

    def options(self, target: InstanceTarget) -> dict[str, Any]:
        """For the actor of its next life; {} where nothing is reserved."""
        for place in self._left.pop(target.name, ()):
            remove_placement_group(place.group)
        if target.name not in self._places:
            return {}
        group = self._places[target.name].group
        return {"scheduling_strategy": PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)}

    def on(self, node: RayNode) -> list[InstanceTarget]:
        """Those who have a place there: twice who has two."""
        every = [*self._places.values(), *(place for left in self._left.values() for place in left)]
        return [place.target for place in every if place.node.node_id == node.node_id]


def _bundle(target: InstanceTarget, node: RayNode) -> dict[str, float]:
    return resources([target]) or {f"node:{node.address}": _ANY}
