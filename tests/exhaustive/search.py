"""Breadth first through every state that can be reached, and back from the good ends: who cannot get there is stuck."""

import time
from array import array
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from tests.exhaustive.budget import Budget
from tests.exhaustive.change import Broken
from tests.exhaustive.events import Event, after, events
from tests.exhaustive.world import State, World

_BITS = (24, 20, 20, 20, 28, 16)


@dataclass(frozen=True, slots=True)
class Counterexample:
    law: str
    start: State
    trace: tuple[tuple[Event, State], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """`is_complete`: every state within the budget was seen; otherwise the search stopped at a limit."""

    num_states: int
    num_transitions: int
    num_ends: int
    depth: int
    seconds: float
    is_complete: bool
    counterexample: Counterexample | None


class Search:
    def __init__(self, world: World, budget: Budget) -> None:
        self.world = world
        self._start = world.start(budget)
        self._numbers: dict[int, int] = {}
        self._packed: list[int] = []
        self._parents = array("i")
        self._sources, self._targets = array("i"), array("i")
        self._ends: list[int] = []
        self._num_transitions = 0
        self._depth = 0

    def run(self, *, max_states: int = 10_000_000, max_seconds: float = 600.0) -> Outcome:
        began = time.process_time()
        found, is_complete = self._forward(max_states, began + max_seconds)
        if found is None and is_complete:
            found = self._stuck()
        return Outcome(
            num_states=len(self._packed),
            num_transitions=self._num_transitions,
            num_ends=len(self._ends),
            depth=self._depth,
            seconds=time.process_time() - began,
            is_complete=is_complete,
            counterexample=found,
        )

    def _see(self, state: State, parent: int) -> int:
        packed = _pack(state)
        number = self._numbers.setdefault(packed, len(self._packed))
        if number == len(self._packed):
            self._packed.append(packed)
            self._parents.append(parent)
        return number

    def _forward(self, max_states: int, until: float) -> tuple[Counterexample | None, bool]:
        self._see(self._start, -1)
        current, level_end = 0, 1
        while current < len(self._packed):
            if current == level_end:
                self._depth, level_end = self._depth + 1, len(self._packed)
            if len(self._packed) > max_states or (current % 256 == 0 and time.process_time() > until):
                return None, False
            if found := self._expand(current):
                return found, False
            current += 1
        return None, True

    def _expand(self, number: int) -> Counterexample | None:
        world, state = self.world, _unpack(self._packed[number])
        if world.is_over(state):
            self._ends.append(number)
            return None
        for event in events(world, state):
            try:
                follower = after(world, state, event)
            except Broken as broken:
                return self._found(str(broken), (*self._trace(number), (event, state)))
            if follower == state:
                continue
            self._num_transitions += 1
            size = len(self._packed)
            target = self._see(follower, number)
            if event[0] is None:
                self._sources.append(number)
                self._targets.append(target)
            if target == size and (law := world.broken_law(follower)):
                return self._found(law, (*self._trace(number), (event, follower)))
        return None

    def _found(self, law: str, trace: tuple[tuple[Event, State], ...]) -> Counterexample:
        return Counterexample(law, self._start, trace)

    # From every state there is a way to an end on which nothing more breaks

    def _stuck(self) -> Counterexample | None:
        can_end = np.zeros(len(self._packed), dtype=bool)
        can_end[self._ends] = True
        sources, targets = np.frombuffer(self._sources, np.int32), np.frombuffer(self._targets, np.int32)
        while True:
            reached = sources[can_end[targets] & ~can_end[sources]]
            if not len(reached):
                break
            can_end[reached] = True
        if can_end.all():
            return None
        first = int(np.argmin(can_end))
        trace = self._trace(first)
        law = f"after {len(trace)} it never ends cleanly, whatever happens"
        return self._found(law, self._onwards(trace))

    def _onwards(self, trace: tuple[tuple[Event, State], ...]) -> tuple[tuple[Event, State], ...]:
        """Some way on from there, until nothing new happens: where it ends shows what is wrong."""
        state, seen = trace[-1][1], {trace[-1][1]}
        while (step := self._something_new(state, seen)) is not None:
            trace, state = (*trace, step), step[1]
            seen.add(state)
        return trace

    def _something_new(self, state: State, seen: set[State]) -> tuple[Event, State] | None:
        for event in events(self.world, state):
            if event[0] is None and (follower := after(self.world, state, event)) not in seen:
                return event, follower
        return None

    def _trace(self, number: int) -> tuple[tuple[Event, State], ...]:
        path = [number]
        while (parent := self._parents[path[-1]]) >= 0:
            path.append(parent)
        states = [_unpack(self._packed[it]) for it in reversed(path)]
        return tuple(self._step(one, other) for one, other in pairwise(states))

    def _step(self, one: State, other: State) -> tuple[Event, State]:
        for event in events(self.world, one):
            try:
                if after(self.world, one, event) == other:
                    return event, other
            except Broken:
                continue
        raise AssertionError("a state without a way to it")


def _pack(state: State) -> int:
    packed = 0
    for part, bits in zip(state, _BITS, strict=True):
        packed = packed << bits | part
    return packed


def _unpack(packed: int) -> State:
    parts = []
    for bits in reversed(_BITS):
        parts.append(packed & ((1 << bits) - 1))
        packed >>= bits
    return tuple(reversed(parts))
