"""A state of the world, and the laws that hold in each."""

from collections.abc import Iterator
from dataclasses import astuple
from typing import Any

from cluster.messages import Epoch, Holder, Reserve
from tests.exhaustive import cast
from tests.exhaustive.budget import Budget
from tests.exhaustive.features import FrontFeatures, NodeFeatures, front_features, node_features
from tests.exhaustive.front import Front
from tests.exhaustive.local_states import Interned, LocalStates
from tests.exhaustive.network import Network, Stream
from tests.exhaustive.node import FRONT, Node

State = tuple[int, ...]  # front, instances, network, budget: all by number


class World:
    """`forgets_lives`: a restarted instance is taken for what it was before (a mutation).

    `front_loses`: the kinds of messages that a budget of `front_losses` is for; None: all.
    """

    def __init__(self, *, forgets_lives: bool = False, front_loses: frozenset[type] | None = None) -> None:
        self.forgets_lives = forgets_lives
        self._front_loses = front_loses
        self.fronts = LocalStates(front_features, self._open_front, self._close_front)
        self.nodes = LocalStates(node_features, self._open_node, self._close_node)
        self.networks: Interned[Network] = Interned()
        self.budgets: Interned[tuple[int, ...]] = Interned()
        self.messages: Interned[Any] = Interned()
        self.reserves: set[int] = set()
        self._fresh: dict[tuple[int, int, int], int] = {}
        self._accepts: dict[tuple[int, int, int, Epoch], bool] = {}

    def start(self, budget: Budget) -> State:
        """All are there and know each other, and a client has asked."""
        front = Front()
        front.submit()
        front.joined = {cast.holder(index, 1) for index in range(len(cast.NAMES))}
        nodes = [self.fresh(index, 1, 1) for index in range(len(cast.NAMES))]
        network = Network((1,) * len(cast.NAMES), (Stream(),) * len(cast.NAMES))
        limits = self.budgets.number(astuple(budget))
        return (self.fronts.put(front), *nodes, self.networks.number(network), limits)

    def fresh(self, index: int, life: int, term: int) -> int:
        """An instance that has just started, and of which the front of that term (0: none yet) knows."""
        key = (index, life, term)
        if key not in self._fresh:
            node = Node(cast.holder(index, life))
            if term:
                node.turn("joined", f"{FRONT}/{term}")
            self._fresh[key] = self.nodes.put(node)
        return self._fresh[key]

    # Laws

    def is_over(self, state: State) -> bool:
        """The client has its end, and nothing of the request is anywhere."""
        front: FrontFeatures = self.fronts.features[state[0]]
        return (
            front.end is not None
            and front.is_empty
            and all(self.nodes.features[it].is_empty for it in state[1:4])
            and self.networks.values[state[4]].is_empty
        )

    def broken_law(self, state: State) -> str | None:
        """At most one copy that may run is one whose tokens the ledger would take (law 2)."""
        runners = list(self._runners(state))
        if len(runners) < 2:
            return None
        accepted = [f"{cast.NAMES[it[0]]} at {it[2]}" for it in runners if self._is_accepted(state[0], *it)]
        return f"the ledger accepts two holders: {accepted}" if len(accepted) > 1 else None

    def _runners(self, state: State) -> Iterator[tuple[int, int, Epoch]]:
        lives = self.networks.values[state[4]].lives
        for index, part in enumerate(state[1:4]):
            features: NodeFeatures = self.nodes.features[part]
            for epoch, may_run in features.copies:
                if may_run:
                    yield index, lives[index], epoch

    def _is_accepted(self, front: int, index: int, life: int, epoch: Epoch) -> bool:
        key = (front, index, life, epoch)
        if key not in self._accepts:
            entry, holder = self.fronts.get(front).entry, cast.holder(index, life)
            self._accepts[key] = entry is not None and (
                entry.is_granted_to(holder, epoch) or entry.is_owned_by(holder, epoch)
            )
        return self._accepts[key]

    # Numbers and what they stand for

    def number(self, message: Any) -> int:
        number = self.messages.number(message)
        if isinstance(message, Reserve):
            self.reserves.add(number)
        return number

    def may_lose(self, message: int) -> bool:
        return self._front_loses is None or type(self.messages.values[message]) in self._front_loses

    def _open_front(self, event: tuple[Any, ...]) -> tuple[Any, ...]:
        """Lives become holders; a message stands last."""
        what, *args = event
        if what == "message":
            return (what, cast.holder(*args[0]), self.messages.values[args[1]])
        if what == "restart":
            return (what, [cast.holder(*life) for life in args[0]])
        return (what, *(cast.holder(*life) if life else None for life in args))

    def _close_front(self, out: tuple[Any, ...]) -> tuple[Any, ...]:
        _, holder, message = out
        return (*cast.key(holder), self.number(message))

    def _open_node(self, event: tuple[Any, ...]) -> tuple[Any, ...]:
        what, *args = event
        match what:
            case "joined" | "left":
                return (what, f"{FRONT}/{args[0]}")
            case "from_front":
                return (what, f"{FRONT}/{args[0]}", self.messages.values[args[1]])
            case "block":
                return (what, cast.holder(*args[0]), *self.messages.values[args[1]])
            case "bad_block":
                return (what, cast.holder(*args[0]), self.messages.values[args[1]][0])
            case "ended":
                return (what, self.messages.values[args[0]][0], args[1])
            case "from_source" | "from_source_while_full" | "from_receiver":
                return (what, cast.holder(*args[0]), self.messages.values[args[1]])
            case "peer_lost" | "receiver_lost" | "source_lost":
                return (what, cast.holder(*args[0]))
        return event

    def _close_node(self, out: tuple[Any, ...]) -> tuple[Any, ...]:
        what, *rest = out
        if what == "ended":
            return out
        if what == "front":
            return (what, int(rest[0].rpartition("/")[2]), self.number(rest[1]))
        assert isinstance(rest[0], Holder)
        message = (rest[1], rest[2]) if what == "link" else rest[1]
        return (what, cast.key(rest[0]), self.number(message))
