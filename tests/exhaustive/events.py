"""All that can happen next."""

from collections.abc import Iterator
from typing import Any

from tests.exhaustive import cast
from tests.exhaustive.budget import (
    ABORT,
    CRASH,
    CUT,
    DELAY,
    DOUBLE,
    FRONT_LOSS,
    GRANT,
    LOSS,
    REFUSAL,
    RESTART,
    SUSPICION,
    TIMER,
)
from tests.exhaustive.change import Change
from tests.exhaustive.features import FrontFeatures, Life, NodeFeatures
from tests.exhaustive.network import STRAYS, Network, Stream
from tests.exhaustive.world import State, World

# (what it costs, or None; a method of Change; its arguments)
Event = tuple[int | None, str, tuple[Any, ...]]


def after(world: World, state: State, event: Event) -> State:
    """Raises Broken."""
    cost, what, args = event
    change = Change(world, state)
    getattr(change, what)(*args)
    budget = state[5]
    if cost is not None:
        left = world.budgets.values[budget]
        budget = world.budgets.number((*left[:cost], left[cost] - 1, *left[cost + 1 :]))
    return change.state(budget)


def events(world: World, state: State) -> Iterator[Event]:
    network = world.networks.values[state[4]]
    left = world.budgets.values[state[5]]
    yield from _front_events(world, state, network, left)
    for index in range(len(cast.NAMES)):
        yield from _instance_events(world, state, network, index, left)
        yield from _stream_events(world, state, network.streams[index], index, left)
    for lane, parcels in network.lanes:
        yield from _lane_events(world, lane, parcels, left)
    for notice in network.notices:
        yield None, "learn", (notice,)


def _front_events(world: World, state: State, network: Network, left: tuple[int, ...]) -> Iterator[Event]:
    front: FrontFeatures = world.fronts.features[state[0]]
    if front.is_queued:
        yield from _dispatches(world, state, network, front, left)
    if front.end is None:
        if not front.has_entry and not front.is_adopting:
            yield None, "front", ("submit",)
        if left[ABORT]:
            yield ABORT, "front", ("abort",)
        if left[GRANT] and front.may_hand_over:
            for to in _choices(world, state, network, front.joined):
                yield GRANT, "front", ("hand_over", to)
        if left[RESTART]:
            yield RESTART, "restart_front", ()
    elif front.has_entry:
        yield None, "front", ("give_up",)
    for index, life in front.awaited:
        if network.lives[index] != life:
            yield None, "front", ("exclude", (index, life))
    if front.is_adopting and left[TIMER]:
        yield TIMER, "front", ("exclude_silent",)


def _dispatches(
    world: World, state: State, network: Network, front: FrontFeatures, left: tuple[int, ...]
) -> Iterator[Event]:
    for prefill in _choices(world, state, network, front.joined):
        yield None, "front", ("dispatch", prefill, None)
        if left[GRANT]:
            others = tuple(life for life in front.joined if life != prefill)
            for decode in _choices(world, state, network, others):
                yield GRANT, "front", ("dispatch", prefill, decode)


def _choices(world: World, state: State, network: Network, joined: tuple[Life, ...]) -> list[Life]:
    """Of instances that nothing has ever touched any will do."""
    out, has_fresh = [], False
    for index, life in joined:
        is_fresh = _is_fresh(world, state, network, index)
        if not (is_fresh and has_fresh):
            out.append((index, life))
        has_fresh = has_fresh or is_fresh
    return out


def _is_fresh(world: World, state: State, network: Network, index: int) -> bool:
    stream = network.streams[index]
    return (
        network.lives[index] == 1
        and state[1 + index] == world.fresh(index, 1, stream.term)
        and not stream.down
        and not stream.up
        and network.is_quiet(index)
    )


def _instance_events(
    world: World, state: State, network: Network, index: int, left: tuple[int, ...]
) -> Iterator[Event]:
    features: NodeFeatures = world.nodes.features[state[1 + index]]
    stream = network.streams[index]
    if not features.is_empty:
        yield None, "node", (index, "step")
        yield None, "repeat", (index,)
    if features.has_open_handover:
        is_quiet = network.is_quiet(index)
        if is_quiet or left[TIMER]:
            yield None if is_quiet else TIMER, "node", (index, "doubt")
    if features.sources:
        is_dead = all(network.lives[source] != life for source, life in features.sources)
        if is_dead or left[TIMER]:
            yield None if is_dead else TIMER, "node", (index, "lease_over")
    if not stream.term and left[TIMER] and features.copies:
        yield TIMER, "node", (index, "grace_over")
    if left[CRASH] and not _is_fresh(world, state, network, index):
        yield CRASH, "crash", (index,)
    if left[SUSPICION] and stream.incarnation and stream.term and not _is_fresh(world, state, network, index):
        yield SUSPICION, "front_loses", (index,)
        yield SUSPICION, "instance_leaves", (index,)


def _stream_events(world: World, state: State, stream: Stream, index: int, left: tuple[int, ...]) -> Iterator[Event]:
    if stream.down and stream.term:
        yield None, "down", (index,)
        if left[FRONT_LOSS] and world.may_lose(stream.down[0]):
            yield FRONT_LOSS, "lose_down", (index,)
    if stream.up and stream.incarnation:
        yield None, "up", (index,)
        if left[FRONT_LOSS] and world.may_lose(stream.up[0]):
            yield FRONT_LOSS, "lose_up", (index,)
    if not stream.incarnation:
        yield None, "join", (index,)
        if stream.term and left[TIMER]:  # before it is joined again this only starts the time of grace
            yield None, "instance_leaves", (index,)
    elif not stream.term:
        yield None, "front_loses", (index,)


def _lane_events(world: World, lane: Any, parcels: tuple[Any, ...], left: tuple[int, ...]) -> Iterator[Event]:
    is_stray = lane.kind in STRAYS
    for position in range(len(parcels) if is_stray else 1):
        yield None, "deliver", (lane, position)
        if left[REFUSAL] and parcels[position].message in world.reserves:
            yield REFUSAL, "deliver", (lane, position, "from_source_while_full")
        if is_stray:
            yield None, "lose", (lane, position)
    if lane.kind == "block":
        if left[REFUSAL]:
            yield REFUSAL, "deliver", (lane, 0, "bad_block")
            yield REFUSAL, "fail_transfer", (lane,)
    elif not is_stray:
        if left[LOSS]:
            yield LOSS, "lose", (lane,)
        if left[DOUBLE]:
            yield DOUBLE, "double", (lane,)
        if left[DELAY]:
            yield DELAY, "hold_back", (lane,)
        if left[CUT]:
            pair = lane[1:] if lane.kind == "control" else (lane.receiver, lane.sender)
            yield CUT, "cut", pair
