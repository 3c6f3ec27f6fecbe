"""A whole cluster in one thread: real cores, real ledger, a model without tensors, and a network that delays and loses.

Every message waits in a channel, in order; each turn one channel delivers, one core steps, or something breaks. What
the model says depends on all KV up to there (`FakeRunner`): a block that is stale, missing or somebody else's shows.
"""

import contextlib
import random
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, replace

from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, Sequence
from cluster.instance.config import CoreConfig, HandoverConfig
from cluster.instance.core import HEARD_MID_STEP, InstanceCore
from cluster.instance.effects import StartTransfer, ToFront, ToReceiver, ToSource
from cluster.links.slot_table import Refusal, SlotTable
from cluster.messages import (
    Activated,
    BlockTransfer,
    DispatchRefused,
    GrantRefused,
    Held,
    Holder,
    Holdings,
    PassedOn,
    Renew,
    SequenceState,
    SetRole,
    StepUpdate,
)
from cluster.role import InstanceRole, InstanceStatus
from router.ledger import (
    Adopt,
    CannotMove,
    Deliver,
    Fail,
    Failure,
    Instruction,
    Ledger,
    Note,
    Place,
    Requeue,
    Step,
    Tell,
)
from router.policies import LeastLoaded, RequestView
from router.scheduler import Member
from router.scheduler import Scheduler as RouterScheduler
from tests.unit.engine.factories import BLOCK_SIZE, FakeRunner, expected_output, make_scheduler

FRONT = "front/1"


class NoChecksums:
    """The fake model's tokens tell a wrong block by themselves."""

    def seal(self, block_ids: Iterable[int]) -> None:
        pass

    def get(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(0 for _ in block_ids)

    def put(self, block_ids: Iterable[int], checksums: Iterable[int]) -> None:
        pass


class Node:
    """One instance in one life."""

    def __init__(self, holder: Holder, role: InstanceRole, num_blocks: int, max_num_seqs: int) -> None:
        self.holder = holder
        self.scheduler = make_scheduler(num_blocks, max_num_batched_tokens=16, max_num_seqs=max_num_seqs)
        self.runner = FakeRunner(self.scheduler.block_manager)
        self.quiet: list[int] = []
        self.slots = SlotTable(self.quiet.append)
        handover = HandoverConfig(lease_s=5.0, reserve_timeout_s=10.0, headroom_blocks=2, piece_bytes=2, max_stages=3)
        engine = Engine(self.scheduler, self.runner)
        self.core = InstanceCore(holder, role, engine, self.slots, NoChecksums(), CoreConfig(handover=handover))
        self.core.on_front_joined(FRONT)
        self.core.effects.clear()

    def records(self, block_ids: Iterable[int]) -> list[list[int]]:
        return [self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] for block_id in block_ids]

    def write(self, block_ids: Iterable[int], records: list[list[int]]) -> None:
        for block_id, record in zip(block_ids, records, strict=True):
            self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] = record


@dataclass(frozen=True, slots=True)
class Life:
    """A request from its asking to its end; an id may be used again by a later one."""

    state: SequenceState
    output: list[int]
    end: FinishReason | Failure


class World:
    """`num_prefill`, `num_decode` and `num_mixed` instances of `num_blocks` blocks and `max_num_seqs` seats each."""

    def __init__(
        self,
        seed: int,
        *,
        num_prefill: int = 1,
        num_decode: int = 2,
        num_mixed: int = 0,
        num_blocks: int = 24,
        max_num_seqs: int = 8,
    ) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.front = FRONT
        self.ledger = Ledger(term=1)
        self.scheduler = RouterScheduler(LeastLoaded(), max_queued_requests=10_000)
        self.nodes: dict[Holder, Node] = {}
        self.channels: dict[tuple[str, object, object], deque[object]] = {}
        self.asked: dict[str, SequenceState] = {}
        self.outputs: dict[str, list[int]] = {}
        self.num_logged: dict[str, int] = {}
        self.notes: list[Note] = []
        self.lives: list[Life] = []
        self._cuts: set[frozenset[Holder]] = set()
        self._is_calm = False
        self._shape = {"num_blocks": num_blocks, "max_num_seqs": max_num_seqs}
        for role, count in zip(InstanceRole, (num_prefill, num_decode, num_mixed), strict=True):
            for index in range(count):
                self._join(Holder(f"{role.value}-{index}", 1), role)

    def _join(self, holder: Holder, role: InstanceRole) -> None:
        self.nodes[holder] = Node(holder, role, **self._shape)
        self._be_member(self.nodes[holder])

    def _be_member(self, node: Node) -> None:
        self.scheduler.join(
            Member(
                place=Place(node.holder, "address", "link"),
                role=node.core.role,
                num_blocks=self._shape["num_blocks"],
                block_size=BLOCK_SIZE,
                max_num_seqs=self._shape["max_num_seqs"],
                saturation_tokens=16,
            )
        )
        self._dispatch()

    # The client

    def ask(self, request_id: str, num_prompt_tokens: int, max_tokens: int, *, shared_prefix: bool = False) -> None:
        assert request_id not in self.asked
        base = 0 if shared_prefix else 1000 * (1 + len(self.asked) + len(self.lives))
        state = SequenceState(
            request_id=request_id,
            front=self.front,
            prompt_token_ids=tuple(base + index for index in range(num_prompt_tokens)),
            sampling_params=SamplingParams(max_tokens=max_tokens),
            arrival_time_s=self.now_s,
        )
        self.asked[request_id] = state
        self.outputs[request_id] = []
        self._admit(state)

    def _admit(self, state: SequenceState) -> None:
        self.num_logged[state.request_id] = 0
        self.ledger.admit(state)
        num_prompt_tokens = len(state.prompt_token_ids)
        self.scheduler.enqueue(RequestView(request_id=state.request_id, num_prompt_tokens=num_prompt_tokens))
        self._dispatch()

    def move(self) -> None:
        """Some request that runs is to go on elsewhere."""
        if self.asked and self.nodes:
            self.move_to(self.random.choice(list(self.asked)), self.random.choice(list(self.nodes)))

    def move_to(self, request_id: str, target: Holder) -> None:
        with contextlib.suppress(CannotMove):
            self._carry_out(self.ledger.hand_over(request_id, Place(target, "address", "link"), "migrate"))

    def abort(self, request_id: str) -> None:
        self._carry_out(self.ledger.fail(request_id, Failure.ABORTED, "aborted"))

    def refuse_queued(self) -> None:
        """As the router does when a role has been missing for too long."""
        if self.scheduler.missing_role():
            for request_id in self.scheduler.queued:
                self._carry_out(self.ledger.fail(request_id, Failure.NO_INSTANCE, "nobody is left"))

    def _dispatch(self) -> None:
        for it in self.scheduler.assign():
            self._carry_out(self.ledger.dispatch(it.request_id, it.prefill, it.decode, it.number))

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    self._channel("front", FRONT, holder).append(message)
                case Deliver():
                    self._deliver(instruction)
                case Fail():
                    self._end(instruction.request_id, instruction.failure)
                case Requeue(request_id=request_id, num_tokens=num_tokens):
                    self.scheduler.forget(request_id)
                    self.scheduler.enqueue_again(RequestView(request_id=request_id, num_prompt_tokens=num_tokens))
                case Adopt(state=state, holder=holder):
                    self.num_logged[state.request_id] = 0
                    self.scheduler.hold(state.request_id, holder, len(state.prompt_token_ids))
                case Note():
                    self._note(instruction)
        self.ledger.check_integrity()
        self._dispatch()

    def _deliver(self, deliver: Deliver) -> None:
        """The router has the next tokens; to a client who had some from an earlier router, only what is new is new."""
        request_id, start = deliver.request_id, deliver.start_index
        assert start == self.num_logged[request_id]
        self.num_logged[request_id] += len(deliver.token_ids)
        if request_id not in self.asked:  # it ended before, and its end is told again
            if deliver.finish_reason:
                self.scheduler.forget(request_id)
            return
        output = self.outputs[request_id]
        known = output[start : start + len(deliver.token_ids)]
        assert tuple(known) == deliver.token_ids[: len(known)]
        output += deliver.token_ids[len(known) :] if start <= len(output) else ()
        self.scheduler.grow(request_id, len(deliver.token_ids))
        if deliver.finish_reason:
            self._end(request_id, deliver.finish_reason)

    def _note(self, note: Note) -> None:
        self.notes.append(note)
        if note.step is Step.GRANTED and note.reason != "prefill" and note.peer is not None:
            self.scheduler.hold(note.request_id, note.peer, 1)
        elif note.step in (Step.PASSED, Step.KEPT) and note.holder is not None:
            self.scheduler.settle(note.request_id, note.holder)

    def _end(self, request_id: str, how: FinishReason | Failure) -> None:
        """Fails with KeyError when it ends twice."""
        if how is Failure.ABORTED and request_id not in self.asked:
            self.scheduler.forget(request_id)
            return
        self.lives.append(Life(self.asked.pop(request_id), self.outputs.pop(request_id), how))
        self.scheduler.forget(request_id)
        self._dispatch()

    @property
    def ends(self) -> set[FinishReason | Failure]:
        return {life.end for life in self.lives}

    def ended(self, how: FinishReason | Failure) -> set[str]:
        return {life.state.request_id for life in self.lives if life.end is how}

    # The network

    def _channel(self, kind: str, source: object, target: object) -> deque[object]:
        return self.channels.setdefault((kind, source, target), deque())

    def deliver_one(self, mid_step: Node | None = None) -> bool:
        """To anybody; or to one in the middle of a step, what it takes then."""
        waiting = [key for key, queue in self.channels.items() if queue and not self._is_held_up(key)]
        if mid_step is not None:
            waiting = [key for key in waiting if self._is_taken_mid_step(key, mid_step)]
        if not waiting:
            return False
        key = self.random.choice(waiting)
        self._arrive(*key, self.channels[key].popleft())
        return True

    def _is_held_up(self, key: tuple[str, object, object]) -> bool:
        """A link moves one transfer at a time, and each takes a while."""
        kind, source, target = key
        if kind == "link":
            return bool(self.channels.get(("moving", source, target)))
        return kind == "moving" and not self._is_calm and self.random.random() < 0.8

    def _is_taken_mid_step(self, key: tuple[str, object, object], node: Node) -> bool:
        kind, source, target = key
        ends = (source, target) if kind in ("link", "moving") else (target,)
        is_of_handovers = kind != "front" or isinstance(self.channels[key][0], HEARD_MID_STEP)
        return node.holder in ends and is_of_handovers

    def _arrive(self, kind: str, source: object, target: object, message: object) -> None:
        node = self.nodes.get(target)  # type: ignore[call-overload]
        if kind == "moving":
            self._end_transfer(source, target, message)  # type: ignore[arg-type]
        elif kind == "instance":
            self._at_front(source, message)  # type: ignore[arg-type]
        elif node is None:
            self._at_nobody(kind, source, message)
        elif kind == "front":
            node.core.on_front_message(self.front, message, self.now_s)  # type: ignore[arg-type]
        elif kind == "source":
            node.core.on_source_message(source, message, self.now_s)  # type: ignore[arg-type]
        elif kind == "receiver":
            node.core.on_receiver_message(source, message, self.now_s)  # type: ignore[arg-type]
        else:
            self._transfer(self.nodes.get(source), node, message)  # type: ignore[arg-type, call-overload]
        self._drain_all()

    def _at_nobody(self, kind: str, source: object, message: object) -> None:
        """What was on its way to an instance that is gone: the sender of blocks learns of it."""
        if kind == "link" and (sender := self.nodes.get(source)):  # type: ignore[call-overload]
            sender.core.on_transfer_ended(message, "connection lost", self.now_s)  # type: ignore[arg-type]

    def _at_front(self, holder: Holder, message: object) -> None:
        if holder not in self.nodes:
            return
        match message:
            case StepUpdate():
                self._on_step(holder, message)
            case Activated():
                self._carry_out(self.ledger.on_activated(holder, message))
            case GrantRefused():
                self._carry_out(self.ledger.on_grant_refused(message))
            case Holdings(held=held):
                self._carry_out(self.ledger.on_holdings(holder, held))
            case PassedOn():
                self._carry_out(self.ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._carry_out(self.ledger.on_dispatch_refused(holder, message))

    def _on_step(self, holder: Holder, message: StepUpdate) -> None:
        for update in message.updates:
            self._carry_out(self.ledger.on_tokens(holder, update))
        if member := self.scheduler.member(holder):
            member.observe_load(message.num_waiting_tokens, message.num_dispatches_seen)
        self._dispatch()

    def _transfer(self, sender: Node | None, receiver: Node, transfer: BlockTransfer) -> None:
        if sender is None:
            return
        if self.is_cut(sender.holder, receiver.holder):
            sender.core.on_transfer_ended(transfer, "unreachable", self.now_s)
            return
        count = len(transfer.block_ids)
        posted = receiver.slots.post(transfer.reservation, sender.holder, transfer.epoch, transfer.first_block, count)
        if isinstance(posted, Refusal):
            sender.core.on_transfer_ended(transfer, posted.value, self.now_s)
            return
        self._channel("moving", sender.holder, receiver.holder).append((transfer, posted))

    def _end_transfer(self, source: Holder, target: Holder, moving: tuple[BlockTransfer, tuple[int, ...]]) -> None:
        """It is complete, or cut off by the end of either side: nothing is posted any more."""
        transfer, posted = moving
        sender, receiver = self.nodes.get(source), self.nodes.get(target)
        failure = None if sender and receiver and not self.is_cut(source, target) else "cut off"
        name = (transfer.reservation, transfer.first_block, len(transfer.block_ids))
        if receiver and sender and failure is None:
            receiver.write(posted, sender.records(transfer.block_ids))
            if receiver.slots.complete(*name):
                receiver.core.on_arrived(*name, (0,) * len(posted))
            else:
                failure = "nobody wants it any more"
        elif receiver and receiver.slots.abandon(*name):
            receiver.core.on_bad(transfer.reservation, "cut off")
        if sender:
            sender.core.on_transfer_ended(transfer, failure, self.now_s)

    def _drain_all(self) -> None:
        for node in list(self.nodes.values()):
            while node.quiet:
                node.core.on_quiet(node.quiet.pop())
            while node.core.effects:
                match node.core.effects.popleft():
                    case ToFront(front, message):
                        if front == self.front:  # an earlier life of it does not hear
                            self._channel("instance", node.holder, FRONT).append(message)
                    case ToReceiver(grant, message):
                        self._to_peer("source", node.holder, grant.receiver, message)
                    case ToSource(source, message):
                        self._to_peer("receiver", node.holder, source, message)
                    case StartTransfer(grant, transfer):
                        self._channel("link", node.holder, grant.receiver).append(transfer)

    def _to_peer(self, kind: str, sender: Holder, target: Holder, message: object) -> None:
        """To one that cannot be reached: a source that opens a stream hears that it could not."""
        if target in self.nodes and not self.is_cut(sender, target):
            self._channel(kind, sender, target).append(message)
        elif kind == "source":
            self.nodes[sender].core.on_receiver_lost(target, self.now_s)

    # What breaks

    def is_cut(self, one: Holder, other: Holder) -> bool:
        return frozenset((one, other)) in self._cuts

    def cut(self) -> None:
        """Two instances no longer reach each other, while the front reaches both."""
        if len(self.nodes) >= 2:
            source, receiver = self.random.sample(list(self.nodes), 2)
            self._cuts.add(frozenset((source, receiver)))
            self._break_streams(source, receiver)
            self._break_streams(receiver, source)

    def heal(self) -> None:
        self._cuts.clear()

    def give_role(self) -> None:
        """Role is data: some instance has another from now on, unless it is the last that can do something."""
        member = self.random.choice(list(self.scheduler.members))
        member.role = self.random.choice(list(InstanceRole))
        if self.scheduler.missing_role():
            member.role = InstanceRole.MIXED
        self._channel("front", FRONT, member.place.holder).append(SetRole(role=member.role))
        self._dispatch()

    def lose_peer_stream(self) -> None:
        """Control messages under way between two instances are gone, and both learn that the stream broke."""
        if len(self.nodes) >= 2:
            self._break_streams(*self.random.sample(list(self.nodes), 2))

    def _break_streams(self, source: Holder, receiver: Holder) -> None:
        self._channel("source", source, receiver).clear()
        self._channel("receiver", receiver, source).clear()
        self.nodes[source].core.on_receiver_lost(receiver, self.now_s)
        self.nodes[receiver].core.on_source_lost(source)
        self._drain_all()

    def lose_front_stream(self) -> None:
        """The front and an instance lose each other, both let go, and the front comes again."""
        node = self.random.choice(list(self.nodes.values()))
        self._leave(node.holder, "the stream broke")
        node.core.on_front_lost(self.front)
        self._drain_all()
        self._channel("instance", node.holder, FRONT).clear()
        for _ in range(self.random.randint(0, 3)):
            self.step(node)
        self._come_back(node)

    def _come_back(self, node: Node) -> None:
        node.core.on_front_joined(self.front)
        self._drain_all()
        self._be_member(node)

    def restart_router(self) -> None:
        """All it knew is gone. It asks everybody it reaches, and clients send again what nobody had."""
        old, term = self.front, self.ledger.term + 1
        self.front = f"front/{term}"
        self.ledger = Ledger(term)
        self.scheduler = RouterScheduler(LeastLoaded(), max_queued_requests=10_000)
        for (kind, _, _), queue in self.channels.items():
            if kind in ("front", "instance"):
                queue.clear()
        for node in self.nodes.values():
            node.core.on_front_lost(old)
        reached = [node for node in self.nodes.values() if self.random.random() < 0.8]
        for node in reached:
            self._be_member(node)
        self._carry_out(self.ledger.adopt({node.holder: self._ask(node) for node in reached}, self.front))
        for request_id in [entry.request_id for entry in self.ledger if entry.request_id not in self.asked]:
            self.abort(request_id)  # nobody comes back for it
        for node in [node for node in self.nodes.values() if node not in reached]:
            self._come_back(node)
        for state in [state for request_id, state in self.asked.items() if request_id not in self.ledger]:
            self._admit(replace(state, front=self.front))

    def _ask(self, node: Node) -> tuple[Held, ...]:
        node.core.on_front_joined(self.front)
        (holdings,) = (
            effect.message
            for effect in node.core.effects
            if isinstance(effect, ToFront) and isinstance(effect.message, Holdings)
        )
        self._drain_all()
        self._channel("instance", node.holder, FRONT).clear()
        return holdings.held

    def kill(self, holder: Holder) -> None:
        del self.nodes[holder]
        for (kind, source, target), queue in self.channels.items():
            if kind in ("source", "receiver") and holder in (source, target):
                queue.clear()
        for node in self.nodes.values():
            node.core.on_receiver_lost(holder, self.now_s)
            node.core.on_source_lost(holder)
        self._leave(holder, "killed")
        self._drain_all()

    def restart(self, holder: Holder) -> None:
        role = self.nodes[holder].core.role
        self.kill(holder)
        self._join(Holder(holder.instance, holder.incarnation + 1), role)

    def _leave(self, holder: Holder, reason: str) -> None:
        self.scheduler.leave(holder)
        self._channel("instance", holder, FRONT).clear()
        self._channel("front", FRONT, holder).clear()
        self._carry_out(self.ledger.on_instance_lost(holder, reason))

    # Time

    def step(self, node: Node) -> None:
        output = node.core.plan(self.now_s)
        self._drain_all()
        if output is not None:
            sampled = node.core.run(output)
            while self.random.random() < 0.3 and self.deliver_one(mid_step=node):
                pass
            node.core.finish(output, sampled, self.now_s)
            self._drain_all()
        node.scheduler.check_integrity()
        node.slots.check_integrity()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for node in list(self.nodes.values()):
            for source in self.nodes:
                if source != node.holder and not self.is_cut(source, node.holder):
                    node.core.on_source_message(source, Renew(), self.now_s)
            node.core.tick(self.now_s)
        self._drain_all()

    def turn(self) -> None:
        """Something happens, whatever it is."""
        if self.random.random() < 0.6 and self.deliver_one():
            return
        if self.nodes and self.random.random() < 0.8:
            self.step(self.random.choice(list(self.nodes.values())))
        else:
            self.pass_time(self.random.random() * 0.3)

    def settle(self, num_rounds: int = 2000) -> None:
        """Nothing breaks any more, and everything runs to its end."""
        self._is_calm = True
        for _ in range(num_rounds):
            while self.deliver_one():
                pass
            for node in list(self.nodes.values()):
                self.step(node)
            self.refuse_queued()
            if not len(self.ledger) and not any(self.channels.values()) and self._is_idle():
                return
            self.pass_time(0.1)
        raise AssertionError(f"did not settle: {list(self.asked)}")

    def _is_idle(self) -> bool:
        snapshots = [node.core.snapshot(InstanceStatus.RUNNING) for node in self.nodes.values()]
        return all(snapshot.num_sequences == 0 for snapshot in snapshots)

    # What must hold

    def assert_tokens_exact(self) -> None:
        """Whatever was delivered is the beginning of what the request yields alone; all of it if it finished."""
        for life in self.lives:
            expected = _alone(life.state)
            whole = isinstance(life.end, FinishReason)
            assert life.output == (expected if whole else expected[: len(life.output)]), life.state.request_id

    def assert_nothing_left(self) -> None:
        assert len(self.ledger) == 0
        assert self.scheduler.num_queued == 0
        assert all(not member.num_tokens and member.num_tokens_in_all == 0 for member in self.scheduler.members)
        for node in self.nodes.values():
            snapshot = node.core.snapshot(InstanceStatus.RUNNING)
            assert snapshot.num_sequences == 0
            assert snapshot.num_reserved_blocks == snapshot.num_leaked_blocks == 0
            assert snapshot.num_free_blocks == snapshot.num_blocks
            assert node.slots.num_reservations == 0
            assert not node.scheduler.sequences


def _alone(state: SequenceState) -> list[int]:
    """What the request yields on an instance of its own."""
    sequence = Sequence(
        request_id=state.request_id,
        prompt_token_ids=state.prompt_token_ids,
        sampling_params=state.sampling_params,
        arrival_time_s=0.0,
    )
    return expected_output(sequence)
