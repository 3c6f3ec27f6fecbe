"""One event, as it is carried out: whom it reaches, and what they send."""

from typing import Any

from cluster.messages import Holdings
from tests.exhaustive import cast
from tests.exhaustive.network import STRAY, Draft, Lane, Notice, Parcel, Stream
from tests.exhaustive.world import State, World


class Broken(Exception):
    """What broke."""


class Change:
    """Made from a state; the methods are events, and `state(budget)` is what came of it."""

    def __init__(self, world: World, state: State) -> None:
        self.world = world
        self._parts = list(state[:4])
        self._network = state[4]
        self._draft: Draft | None = None

    @property
    def draft(self) -> Draft:
        if self._draft is None:
            self._draft = Draft(self.world.networks.values[self._network])
        return self._draft

    def state(self, budget: int) -> State:
        network = self._network if self._draft is None else self.world.networks.number(self._draft.network())
        return (*self._parts, network, budget)

    # The parts

    def front(self, event: str, *args: Any) -> None:
        turn = self.world.fronts.turn(self._parts[0], (event, *args))
        if turn.state is None:
            raise Broken(turn.broken)
        self._parts[0] = turn.state
        for index, life, message in turn.out:
            stream = self.draft.streams[index]
            if stream.incarnation == life and stream.term:
                self.draft.streams[index] = stream._replace(down=(*stream.down, message))

    def node(self, index: int, event: str, *args: Any) -> str | None:
        """Returns how a transfer ended."""
        turn = self.world.nodes.turn(self._parts[1 + index], (event, *args))
        if turn.state is None:
            raise Broken(turn.broken)
        self._parts[1 + index] = turn.state
        ended = None
        for what, *rest in turn.out:
            if what == "ended":
                ended = rest[0]
            else:
                self._send(index, what, *rest)
        return ended

    def _send(self, index: int, what: str, to: Any, message: int) -> None:
        if what == "front":
            stream = self.draft.streams[index]
            if stream.term == to and stream.incarnation:
                self.draft.streams[index] = stream._replace(up=(*stream.up, message))
            return
        target, life = to
        lives = self.draft.lives
        if lives[target] == life:
            kind = {"receiver": "control", "source": "answer", "link": "block"}[what]
            self.draft.put(Lane(kind, index, target), Parcel(message, lives[index], life))
        elif what == "receiver":
            self.draft.notices.add(Notice(index, target, life))
        elif what == "link":
            self.node(index, "ended", message, "connection lost")

    # Streams to the front

    def down(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.draft.streams[index] = stream._replace(down=stream.down[1:])
        self.node(index, "from_front", stream.term, stream.down[0])

    def up(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.draft.streams[index] = stream._replace(up=stream.up[1:])
        self.front("message", (index, stream.incarnation), stream.up[0])

    def lose_down(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.draft.streams[index] = stream._replace(down=stream.down[1:])

    def lose_up(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.draft.streams[index] = stream._replace(up=stream.up[1:])

    def join(self, index: int) -> None:
        """Both know each other again; what it holds is its first word."""
        stream = self.draft.streams[index]
        if stream.term:
            self.node(index, "left", stream.term)
        term = self.world.fronts.features[self._parts[0]].term
        self.draft.streams[index] = Stream(self.draft.lives[index], term)
        self.node(index, "joined", term)
        if self._has_nothing(index):
            self.up(index)  # empty hands: nothing depends on when this is heard

    def _has_nothing(self, index: int) -> bool:
        message = self.world.messages.values[self.draft.streams[index].up[0]]
        assert isinstance(message, Holdings)
        return not message.held and self.world.nodes.features[self._parts[1 + index]].is_empty

    def instance_leaves(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.node(index, "left", stream.term)
        self.draft.streams[index] = self.draft.streams[index]._replace(term=0, down=())

    def front_loses(self, index: int) -> None:
        stream = self.draft.streams[index]
        self.draft.streams[index] = stream._replace(incarnation=0, up=())
        self.front("lost", (index, stream.incarnation))

    def restart_front(self) -> None:
        """Instances that nothing has ever touched are back at once: nothing depends on when."""
        self.front("restart", tuple(enumerate(self.draft.lives)))
        for index, stream in enumerate(self.draft.streams):
            is_fresh = self._parts[1 + index] == self.world.fresh(index, self.draft.lives[index], stream.term)
            self.draft.streams[index] = stream._replace(incarnation=0, up=())
            if is_fresh and not stream.down:
                self.join(index)

    # Instances to each other

    def deliver(self, lane: Lane, position: int = 0, event: str = "") -> None:
        parcel = self.draft.take(lane, position)
        if lane.kind == "block":
            failure = self.node(lane.receiver, event or "block", (lane.sender, parcel.from_life), parcel.message)
            self.node(lane.sender, "ended", parcel.message, failure)
        else:
            event = event or ("from_source" if lane.kind.endswith("control") else "from_receiver")
            self.node(lane.receiver, event, (lane.sender, parcel.from_life), parcel.message)

    def fail_transfer(self, lane: Lane) -> None:
        self.node(lane.sender, "ended", self.draft.take(lane).message, "unreachable")

    def lose(self, lane: Lane, position: int = 0) -> None:
        self.draft.take(lane, position)

    def double(self, lane: Lane) -> None:
        self.draft.put(Lane(STRAY[lane.kind], *lane[1:]), self.draft.lanes[lane][0])

    def hold_back(self, lane: Lane) -> None:
        self.draft.put(Lane(STRAY[lane.kind], *lane[1:]), self.draft.take(lane))

    def cut(self, source: int, target: int) -> None:
        gone = (Lane("control", source, target), Lane("answer", target, source))
        self.draft.clear(lambda lane: lane in gone)
        lives = self.draft.lives
        self.node(source, "receiver_lost", (target, lives[target]))
        self.node(target, "source_lost", (source, lives[source]))

    def repeat(self, index: int) -> None:
        """What has not been answered is said again, but not while it or its answer is under way."""
        turn = self.world.nodes.turn(self._parts[1 + index], ("repeat",))
        if turn.state is None:
            raise Broken(turn.broken)
        self._parts[1 + index] = turn.state
        before = self.world.networks.values[self._network]
        for what, to, message in turn.out:
            if what == "front":
                is_quiet = not before.streams[index].up and not before.streams[index].down
            else:
                pair = {index, to[0]}
                is_quiet = not any({*lane[1:]} == pair and lane.kind not in STRAY.values() for lane, _ in before.lanes)
            if is_quiet:
                self._send(index, what, to, message)

    # Death

    def crash(self, index: int) -> None:
        """Those who had to do with it have yet to learn of it; blocks that it was sending are gone."""
        world, draft = self.world, self.draft
        life = draft.lives[index]
        for other in range(len(cast.NAMES)):
            is_fresh = self._parts[1 + other] == world.fresh(other, draft.lives[other], draft.streams[other].term)
            if other != index and not (is_fresh and world.networks.values[self._network].is_quiet(other)):
                draft.notices.add(Notice(other, index, life))
        draft.lives[index] = life if world.forgets_lives else life + 1
        self._parts[1 + index] = world.fresh(index, draft.lives[index], 0)
        draft.streams[index] = draft.streams[index]._replace(term=0, down=())
        draft.notices = {notice for notice in draft.notices if notice.observer != index}
        draft.clear(lambda lane: lane.kind == "block" and lane.sender == index)
        if not world.forgets_lives:
            draft.clear(lambda lane: lane.kind != "block" and lane.receiver == index)

    def learn(self, notice: Notice) -> None:
        """The streams to and from the dead are over; what it had said, and nobody has read, is gone with them."""
        observer, lost, life = notice
        self.draft.notices.discard(notice)
        for kind in ("control", "answer"):
            self.draft.keep(Lane(kind, lost, observer), lambda it: it.from_life != life)
        lane = Lane("block", observer, lost)
        transfers = [it for it in self.draft.lanes.get(lane, ()) if it.to_life == life]
        self.draft.keep(lane, lambda it: it.to_life != life)
        for parcel in transfers:
            self.node(observer, "ended", parcel.message, "connection lost")
        self.node(observer, "peer_lost", (lost, life))
