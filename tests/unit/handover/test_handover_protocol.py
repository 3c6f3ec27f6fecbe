"""Both ends of a handover against each other, and each against what can go wrong."""

from collections import deque

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.engine.sampling_params import SamplingParams
from cluster.handover.protocol.machine import InvalidTransition
from cluster.handover.protocol.receiver import (
    Activate,
    Answer,
    CloseSlots,
    FreeBlocks,
    HandoverReceiver,
    ReceiverState,
    TellLedger,
)
from cluster.handover.protocol.source import Doubt, HandoverSource, Release, RunOn, Send, SourceState, Terms, Transfer
from cluster.messages import Cancel, Epoch, Grant, Holder, Pass, PassTaken, Refused, Reserve, Reserved, SequenceState

pytestmark = pytest.mark.unit

EPOCH = Epoch(1, 2)
SOURCE = Holder("prefill-0", 1)
GRANT = Grant(epoch=EPOCH, receiver=Holder("decode-0", 1), address="a:1", link_address="a:2")
STATE = SequenceState(
    request_id="r",
    front="front",
    prompt_token_ids=tuple(range(40)),
    output_token_ids=(7,),
    sampling_params=SamplingParams(),
    arrival_time_s=0.0,
)
RESERVE = Reserve(request_id="r", epoch=EPOCH, num_tokens=41, lease_s=5.0)


def make_source() -> HandoverSource:
    source = HandoverSource("r", GRANT, Terms(decodes_on=False, give_up_at_s=10.0, repeat_s=0.5, doubt_after_s=5.0))
    source.start(41, (), 5.0)
    return source


def reserved(num_cached_blocks: int = 0) -> Reserved:
    return Reserved(request_id="r", epoch=EPOCH, reservation=3, num_cached_blocks=num_cached_blocks)


def refused() -> Refused:
    return Refused(request_id="r", epoch=EPOCH, reason="full")


def passed_source() -> HandoverSource:
    source = make_source()
    source.on_reserved(reserved(), 2, 0.0)
    source.on_frozen(3, 40, 1, STATE, 0.0)
    return source


def baton(num_blocks: int = 3, reservation: int = 3) -> Pass:
    return Pass(
        request_id="r",
        epoch=EPOCH,
        reservation=reservation,
        num_blocks=num_blocks,
        num_computed_tokens=40,
        num_reported_tokens=1,
        state=STATE,
    )


def make_receiver() -> HandoverReceiver:
    receiver = HandoverReceiver(SOURCE, RESERVE)
    receiver.on_room(3, 0)
    return receiver


def test_blocks_leave_as_they_are_sealed_and_the_baton_with_the_last() -> None:
    source = make_source()
    assert source.on_sealed(1, 0.0) == []
    assert source.on_reserved(reserved(), 1, 0.0) == [Transfer(3, 0, 1)]
    assert source.on_sealed(2, 0.0) == [Transfer(3, 1, 1)]
    assert source.on_frozen(3, 40, 1, STATE, 0.0) == [Transfer(3, 2, 1), Send(baton())]
    assert source.on_pass_taken() == [Release()]


def test_only_what_the_receiver_lacks_travels() -> None:
    source = make_source()
    assert source.on_reserved(reserved(num_cached_blocks=2), 2, 0.0) == []
    assert source.on_frozen(3, 40, 1, STATE, 0.0)[0] == Transfer(3, 2, 1)


def test_a_reservation_that_comes_after_the_prompt_is_done_sends_everything_at_once() -> None:
    source = make_source()
    source.on_frozen(3, 40, 1, STATE, 0.0)
    assert source.on_reserved(reserved(), 2, 0.0) == [Transfer(3, 0, 3), Send(baton())]


def test_a_preempted_sequence_offers_nothing_that_it_no_longer_has() -> None:
    source = make_source()
    source.on_sealed(2, 0.0)
    source.on_sealed(0, 0.0)
    assert source.on_reserved(reserved(), 0, 0.0) == []


@pytest.mark.parametrize("event", ["refused", "closed", "lost", "late", "transfer"])
def test_before_the_baton_is_passed_any_failure_leaves_the_request_running_here(event: str) -> None:
    source = make_source()
    if event == "transfer":
        source.on_reserved(reserved(), 1, 0.0)
    out = {
        "refused": lambda: source.on_refused(refused()),
        "closed": source.on_grant_closed,
        "lost": source.on_peer_lost,
        "late": lambda: source.tick(10.0),
        "transfer": lambda: source.on_transfer_failed("cut"),
    }[event]()
    assert any(isinstance(item, RunOn) for item in out)
    assert source.state is SourceState.RAN_ON


def test_once_passed_only_a_refusal_or_the_ledger_lets_it_run_here_again() -> None:
    for event in (HandoverSource.on_peer_lost, lambda source: source.on_transfer_failed("cut")):
        source = passed_source()
        assert not any(isinstance(item, RunOn) for item in event(source))
        assert source.state is SourceState.PASSED
    assert passed_source().on_refused(refused()) == [RunOn("full")]
    assert any(isinstance(item, RunOn) for item in passed_source().on_grant_closed())


def test_an_unanswered_baton_is_offered_again() -> None:
    source = passed_source()
    assert source.tick(0.4) == []
    assert source.tick(0.5) == [Send(baton())]


def test_a_baton_that_nobody_answers_is_left_to_the_ledger() -> None:
    assert passed_source().tick(5.0) == [Send(baton()), Doubt("nobody answers the baton")]


def test_a_preempted_sequence_keeps_no_room_elsewhere_waiting() -> None:
    source = make_source()
    source.on_reserved(reserved(), 1, 0.0)
    assert source.on_preempted() == [Send(Cancel(request_id="r", epoch=EPOCH)), RunOn("preempted")]


def test_an_ended_request_takes_its_reservation_back() -> None:
    source = passed_source()
    assert source.on_request_ended() == [Send(Cancel(request_id="r", epoch=EPOCH))]
    assert source.on_refused(refused()) == []


def test_the_receiver_activates_when_blocks_and_baton_are_there_in_either_order() -> None:
    blocks_first, baton_first = make_receiver(), make_receiver()
    blocks_first.on_arrived(0, 3)
    baton_first.on_pass(baton())
    for out in (blocks_first.on_pass(baton()), baton_first.on_arrived(0, 3)):
        assert out == [CloseSlots(3), Activate(baton()), Answer(PassTaken(request_id="r", epoch=EPOCH))]


def test_a_gap_in_the_blocks_destroys_the_reservation() -> None:
    out = make_receiver().on_arrived(1, 1)
    assert isinstance(out[0], Answer)
    assert isinstance(out[0].message, Refused)


def test_a_refused_baton_is_told_to_the_ledger_too() -> None:
    receiver = make_receiver()
    receiver.on_pass(baton())
    assert TellLedger("front", "lease expired") in receiver.on_failed("lease expired")


def test_a_baton_for_another_reservation_is_refused() -> None:
    out = make_receiver().on_pass(baton(reservation=4))
    assert [type(item.message) for item in out if isinstance(item, Answer)] == [Refused]


def test_blocks_are_free_only_when_nothing_is_posted_into_them() -> None:
    receiver = make_receiver()
    assert FreeBlocks() not in receiver.on_cancelled()
    assert receiver.state is ReceiverState.CLOSING
    assert receiver.on_quiet() == [FreeBlocks()]


def test_an_impossible_transition_says_how_it_came_about() -> None:
    source = make_source()
    source.transition(SourceState.TRANSFERRING)
    with pytest.raises(InvalidTransition, match="RESERVING -> TRANSFERRING cannot become RESERVING"):
        source.transition(SourceState.RESERVING)


@settings(max_examples=300)
@given(st.data())
def test_the_baton_is_never_in_two_hands_and_never_on_the_ground(data: st.DataObject) -> None:
    """Random order of messages, blocks, losses, leases, refusals: in the end one side has the request, and only one.

    The ledger's part: when nothing else is left to happen and the baton hangs in the air, the pass is repeated.
    """
    source, receiver = make_source(), HandoverReceiver(SOURCE, RESERVE)
    to_receiver: deque[object] = deque([RESERVE])
    to_source: deque[object] = deque()
    blocks: deque[Transfer] = deque()
    activated = 0
    frozen = admitted = False

    def carry_source(instructions: list) -> None:
        for item in instructions:
            if isinstance(item, Send):
                to_receiver.append(item.message)
            elif isinstance(item, Transfer):
                blocks.append(item)

    def carry_receiver(instructions: list) -> None:
        nonlocal activated
        for item in instructions:
            if isinstance(item, Answer):
                to_source.append(item.message)
            elif isinstance(item, Activate):
                activated += 1
            elif isinstance(item, CloseSlots) and receiver.state is ReceiverState.CLOSING:
                carry_receiver(receiver.on_quiet())

    def deliver_to_receiver() -> None:
        message = to_receiver.popleft()
        if isinstance(message, Pass):
            if receiver.state is ReceiverState.ACTIVE:
                to_source.append(PassTaken(request_id="r", epoch=EPOCH))
            else:
                carry_receiver(receiver.on_pass(message))
        elif isinstance(message, Cancel):
            carry_receiver(receiver.on_cancelled())

    def deliver_to_source() -> None:
        message = to_source.popleft()
        if isinstance(message, Reserved):
            carry_source(source.on_reserved(message, 2, 0.0))
        elif isinstance(message, Refused):
            carry_source(source.on_refused(message))
        else:
            carry_source(source.on_pass_taken())

    def deliver_blocks(fails: bool) -> None:
        transfer = blocks.popleft()
        if fails:
            carry_source(source.on_transfer_failed("cut"))
        else:
            carry_receiver(receiver.on_arrived(transfer.first_block, transfer.num_blocks))

    for _ in range(data.draw(st.integers(5, 40))):
        event = data.draw(
            st.sampled_from(["admit", "freeze", "to_r", "to_s", "blocks", "cut", "lease", "lost", "drop"])
        )
        if event == "admit" and not admitted and receiver.state is ReceiverState.QUEUED:
            admitted = True
            carry_receiver(receiver.on_room(3, 0))
        elif event == "freeze" and not frozen:
            frozen = True
            carry_source(source.on_frozen(3, 40, 1, STATE, 0.0))
        elif event == "to_r" and to_receiver:
            deliver_to_receiver()
        elif event == "to_s" and to_source:
            deliver_to_source()
        elif event in ("blocks", "cut") and blocks:
            deliver_blocks(fails=event == "cut")
        elif event == "lease":
            carry_receiver(receiver.on_failed("lease expired"))
        elif event == "lost":
            carry_source(source.on_peer_lost())
            carry_receiver(receiver.on_failed("source lost"))
            to_receiver.clear()
            to_source.clear()
        elif event == "drop" and to_source:
            to_source.popleft()
        assert not (activated and source.state is SourceState.RAN_ON), "two hands"
        assert activated <= 1

    now_s = 100.0
    for _ in range(20):  # the world calms down: everything arrives, and time passes
        if not frozen:
            frozen = True
            carry_source(source.on_frozen(3, 40, 1, STATE, now_s))
        while to_receiver or to_source or blocks:
            if blocks:
                deliver_blocks(fails=False)
            elif to_receiver:
                deliver_to_receiver()
            else:
                deliver_to_source()
        now_s += 1.0
        carry_source(source.tick(now_s))
    assert (source.state is SourceState.RAN_ON) != bool(activated), "on the ground"
    assert source.state in (SourceState.RAN_ON, SourceState.RELEASED)
