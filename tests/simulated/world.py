"""A whole cluster in one thread: real cores, real ledger, a model without tensors, and a network that delays and loses.

Every message waits in a channel, in order; each turn one channel delivers, one core steps, or something breaks. What
the model says depends on all KV up to there (`FakeRunner`): a block that is stale, missing or somebody else's shows.
"""

import random
from collections import deque
from collections.abc import Iterable

from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, Sequence
from cluster.instance.config import HandoverConfig
from cluster.instance.core import InstanceCore
from cluster.instance.effects import StartTransfer, ToFront, ToReceiver, ToSource
from cluster.links.slot_table import Refusal, SlotTable
from cluster.messages import (
    Activated,
    BlockTransfer,
    DispatchRefused,
    GrantRefused,
    Holder,
    PassedOn,
    SequenceState,
    StepUpdate,
)
from cluster.role import InstanceRole, InstanceStatus
from router.ledger import Deliver, Fail, Failure, Instruction, Ledger, Place, Tell
from tests.unit.engine.factories import BLOCK_SIZE, FakeRunner, expected_output, make_scheduler

FRONT = "front"


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

    def __init__(self, holder: Holder, role: InstanceRole, num_blocks: int) -> None:
        self.holder = holder
        self.scheduler = make_scheduler(num_blocks, max_num_batched_tokens=16)
        self.runner = FakeRunner(self.scheduler.block_manager)
        self.quiet: list[int] = []
        self.slots = SlotTable(self.quiet.append)
        config = HandoverConfig(lease_s=5.0, reserve_timeout_s=10.0)
        engine = Engine(self.scheduler, self.runner)
        self.core = InstanceCore(holder, role, engine, self.slots, NoChecksums(), config)

    def records(self, block_ids: Iterable[int]) -> list[list[int]]:
        return [self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] for block_id in block_ids]

    def write(self, block_ids: Iterable[int], records: list[list[int]]) -> None:
        for block_id, record in zip(block_ids, records, strict=True):
            self.runner.slots[block_id * BLOCK_SIZE : (block_id + 1) * BLOCK_SIZE] = record


class World:
    def __init__(self, seed: int, *, num_prefill: int = 1, num_decode: int = 2, num_blocks: int = 24) -> None:
        self.random = random.Random(seed)
        self.now_s = 0.0
        self.ledger = Ledger(term=1)
        self.nodes: dict[Holder, Node] = {}
        self.channels: dict[tuple[str, object, object], deque[object]] = {}
        self.outputs: dict[str, list[int]] = {}
        self.ends: dict[str, FinishReason | Failure] = {}
        self.asked: dict[str, SequenceState] = {}
        self.num_dispatches = 0
        for index in range(num_prefill):
            self._join(Holder(f"prefill-{index}", 1), InstanceRole.PREFILL, num_blocks)
        for index in range(num_decode):
            self._join(Holder(f"decode-{index}", 1), InstanceRole.DECODE, num_blocks)

    def _join(self, holder: Holder, role: InstanceRole, num_blocks: int) -> None:
        self.nodes[holder] = Node(holder, role, num_blocks)

    # The client

    def ask(self, request_id: str, num_prompt_tokens: int, max_tokens: int, *, shared_prefix: bool = False) -> None:
        base = 0 if shared_prefix else 1000 * (1 + len(self.asked))
        state = SequenceState(
            request_id=request_id,
            front=FRONT,
            prompt_token_ids=tuple(base + index for index in range(num_prompt_tokens)),
            sampling_params=SamplingParams(max_tokens=max_tokens),
            arrival_time_s=self.now_s,
        )
        self.asked[request_id] = state
        self.outputs[request_id] = []
        self.ledger.admit(state)
        prefill = self._pick(InstanceRole.PREFILL)
        decode = self._pick(InstanceRole.DECODE)
        if prefill is None:
            self._carry_out(self.ledger.fail(request_id, Failure.ABORTED, "nobody is left"))
            return
        self.num_dispatches += 1
        self._carry_out(self.ledger.dispatch(request_id, prefill, decode, self.num_dispatches))

    def _pick(self, role: InstanceRole) -> Place | None:
        holders = [node.holder for node in self.nodes.values() if node.core.role is role]
        return Place(self.random.choice(holders), "address", "link") if holders else None

    def abort(self, request_id: str) -> None:
        self._carry_out(self.ledger.fail(request_id, Failure.ABORTED, "aborted"))

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    self._channel("front", FRONT, holder).append(message)
                case Deliver():
                    assert instruction.start_index == len(self.outputs[instruction.request_id])
                    self.outputs[instruction.request_id] += instruction.token_ids
                    if instruction.finish_reason:
                        self._end(instruction.request_id, instruction.finish_reason)
                case Fail():
                    self._end(instruction.request_id, instruction.failure)
        self.ledger.check_integrity()

    def _end(self, request_id: str, how: FinishReason | Failure) -> None:
        assert request_id not in self.ends, "ended twice"
        self.ends[request_id] = how

    # The network

    def _channel(self, kind: str, source: object, target: object) -> deque[object]:
        return self.channels.setdefault((kind, source, target), deque())

    def deliver_one(self) -> bool:
        waiting = [key for key, queue in self.channels.items() if queue]
        if not waiting:
            return False
        key = self.random.choice(waiting)
        self._arrive(*key, self.channels[key].popleft())
        return True

    def _arrive(self, kind: str, source: object, target: object, message: object) -> None:
        node = self.nodes.get(target)  # type: ignore[call-overload]
        if kind == "instance":
            self._at_front(source, message)  # type: ignore[arg-type]
        elif node is None:
            self._at_nobody(kind, source, message)
        elif kind == "front":
            node.core.on_front_message(FRONT, message, self.now_s)  # type: ignore[arg-type]
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
            sender.core.on_transfer_ended(message, "connection lost")  # type: ignore[arg-type]

    def _at_front(self, holder: Holder, message: object) -> None:
        if holder not in self.nodes:
            return
        match message:
            case StepUpdate(updates=updates):
                for update in updates:
                    self._carry_out(self.ledger.on_tokens(holder, update))
            case Activated():
                self._carry_out(self.ledger.on_activated(holder, message))
            case GrantRefused():
                self._carry_out(self.ledger.on_grant_refused(message))
            case PassedOn():
                self._carry_out(self.ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._carry_out(self.ledger.on_dispatch_refused(holder, message))

    def _transfer(self, sender: Node | None, receiver: Node, transfer: BlockTransfer) -> None:
        if sender is None:
            return
        count = len(transfer.block_ids)
        posted = receiver.slots.post(transfer.reservation, transfer.epoch, transfer.first_block, count)
        if isinstance(posted, Refusal):
            sender.core.on_transfer_ended(transfer, posted.value)
            return
        receiver.write(posted, sender.records(transfer.block_ids))
        receiver.slots.complete(transfer.reservation, transfer.first_block, count)
        receiver.core.on_arrived(transfer.reservation, transfer.first_block, count, (0,) * count)
        sender.core.on_transfer_ended(transfer)

    def _drain_all(self) -> None:
        for node in self.nodes.values():
            while node.quiet:
                node.core.on_quiet(node.quiet.pop())
            while node.core.effects:
                match node.core.effects.popleft():
                    case ToFront(_, message):
                        self._channel("instance", node.holder, FRONT).append(message)
                    case ToReceiver(grant, message):
                        self._channel("source", node.holder, grant.receiver).append(message)
                    case ToSource(source, message):
                        self._channel("receiver", node.holder, source).append(message)
                    case StartTransfer(grant, transfer):
                        self._channel("link", node.holder, grant.receiver).append(transfer)

    # What breaks

    def lose_peer_stream(self) -> None:
        """Control messages under way between two instances are gone, and both learn that the stream broke."""
        if len(self.nodes) < 2:
            return
        source, receiver = self.random.sample(list(self.nodes), 2)
        self._channel("source", source, receiver).clear()
        self._channel("receiver", receiver, source).clear()
        self.nodes[source].core.on_receiver_lost(receiver)
        self.nodes[receiver].core.on_source_lost(source)
        self._drain_all()

    def kill(self, holder: Holder) -> None:
        del self.nodes[holder]
        for (kind, source, target), queue in self.channels.items():
            if kind in ("source", "receiver", "instance") and holder in (source, target):
                queue.clear()
        for node in self.nodes.values():
            node.core.on_receiver_lost(holder)
            node.core.on_source_lost(holder)
        self._carry_out(self.ledger.on_instance_lost(holder, "killed"))
        self._drain_all()

    # Time

    def step(self, node: Node) -> None:
        node.core.step(self.now_s)
        self._drain_all()
        node.scheduler.check_integrity()
        node.slots.check_integrity()

    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds
        for node in list(self.nodes.values()):
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
        for _ in range(num_rounds):
            while self.deliver_one():
                pass
            for node in list(self.nodes.values()):
                self.step(node)
            if not len(self.ledger) and not any(self.channels.values()) and self._is_idle():
                return
            self.pass_time(0.1)
        raise AssertionError(f"did not settle: {list(self.asked.keys() - self.ends.keys())}")

    def _is_idle(self) -> bool:
        snapshots = [node.core.snapshot(FRONT, InstanceStatus.RUNNING) for node in self.nodes.values()]
        return all(snapshot.num_sequences == 0 for snapshot in snapshots)

    # What must hold

    def expected(self, request_id: str) -> list[int]:
        state = self.asked[request_id]
        alone = Sequence(
            request_id=request_id,
            prompt_token_ids=state.prompt_token_ids,
            sampling_params=state.sampling_params,
            arrival_time_s=0.0,
        )
        return expected_output(alone)

    def assert_tokens_exact(self) -> None:
        """Whatever was delivered is the beginning of what the request yields alone; all of it if it finished."""
        for request_id, output in self.outputs.items():
            expected = self.expected(request_id)
            whole = isinstance(self.ends.get(request_id), FinishReason)
            assert output == (expected if whole else expected[: len(output)]), request_id

    def assert_nothing_left(self) -> None:
        assert len(self.ledger) == 0
        for node in self.nodes.values():
            snapshot = node.core.snapshot(FRONT, InstanceStatus.RUNNING)
            assert snapshot.num_sequences == 0
            assert snapshot.num_reserved_blocks == snapshot.num_leaked_blocks == 0
            assert snapshot.num_free_blocks == snapshot.num_blocks
            assert node.slots.num_reservations == 0
            assert not node.scheduler.sequences
