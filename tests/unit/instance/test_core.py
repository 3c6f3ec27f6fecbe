"""One instance without its body: what it answers, message by message."""

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.instance.effects import StartTransfer, ToFront, ToReceiver, ToSource
from cluster.messages import (
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    Grant,
    GrantRefused,
    HandOver,
    Holder,
    Pass,
    PassedOn,
    PassTaken,
    Refused,
    Reserve,
    Reserved,
    SequenceState,
    StepUpdate,
    Stop,
    TokenUpdate,
    WantTokens,
)
from cluster.role import InstanceRole, InstanceStatus
from tests.simulated.world import FRONT, Node

pytestmark = pytest.mark.unit

ME = Holder("me", 1)
SOURCE, RECEIVER = Holder("source", 1), Holder("receiver", 1)
E1, E2, E3 = Epoch(1, 1), Epoch(1, 2), Epoch(1, 3)
GRANT = Grant(epoch=E2, receiver=RECEIVER, address="a", link_address="l")


@pytest.fixture
def node() -> Node:
    return Node(ME, InstanceRole.MIXED, num_blocks=8, max_num_seqs=4)


def make_state(num_prompt_tokens: int = 6, max_tokens: int = 4, **changes: object) -> SequenceState:
    values = {
        "request_id": "r",
        "front": FRONT,
        "prompt_token_ids": tuple(range(num_prompt_tokens)),
        "sampling_params": SamplingParams(max_tokens=max_tokens),
        "arrival_time_s": 0.0,
    }
    return SequenceState(**{**values, **changes})  # type: ignore[arg-type]


def reserve(request_id: str = "r", epoch: Epoch = E2, num_tokens: int = 7) -> Reserve:
    return Reserve(request_id=request_id, epoch=epoch, num_tokens=num_tokens, lease_s=5.0)


def step(node: Node, now_s: float = 0.0) -> None:
    output = node.core.plan(now_s)
    if output is not None:
        node.core.compute(output, now_s)


def said(node: Node, kind: type) -> list:
    """Messages of a kind, taken from what the core wants said so far."""
    effects = list(node.core.effects)
    node.core.effects.clear()
    messages = [getattr(effect, "message", effect) for effect in effects]
    return [message for message in messages if isinstance(message, kind)]


def updates(node: Node) -> list[TokenUpdate]:
    return [update for message in said(node, StepUpdate) for update in message.updates]


def run(node: Node) -> list[TokenUpdate]:
    for _ in range(20):
        step(node)
    return updates(node)


def num_held(node: Node) -> tuple[int, int]:
    snapshot = node.core.snapshot(InstanceStatus.RUNNING)
    return snapshot.num_sequences, snapshot.num_blocks - snapshot.num_free_blocks


def test_each_token_is_reported_once_and_the_finish_reason_with_the_last(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    got = run(node)
    assert [update.start_index for update in got] == [0, 1, 2, 3]
    assert [update.finish_reason for update in got] == [None, None, None, FinishReason.LENGTH]


def test_tokens_may_be_reported_later_unless_something_follows_from_them(node: Node) -> None:
    def step_quietly() -> list[int]:
        output = node.core.plan(0.0)
        assert output is not None
        node.core.finish(output, node.core.run(output), 0.0, reports_later=True)
        return [update.start_index for update in updates(node)]

    node.core.on_front_message(FRONT, Dispatch(state=make_state(max_tokens=4), epoch=E1), 0.0)
    assert step_quietly() == []
    node.core.report_stepped()
    node.core.report_stepped()
    assert [update.start_index for update in updates(node)] == [0]
    assert step_quietly() == []
    node.core.on_front_message(FRONT, HandOver(request_id="r", epoch=E1, grant=GRANT), 0.0)
    assert step_quietly() == [1]  # both tokens
    assert step_quietly() == [3]  # the last one
    node.core.report_stepped()
    assert updates(node) == []


def test_a_finished_request_is_kept_until_its_last_token_is_acknowledged(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    all_tokens = [token for update in run(node) for token in update.token_ids]
    node.core.on_front_message(FRONT, WantTokens(request_id="r", epoch=E1, next_index=1), 0.0)
    (again,) = updates(node)
    assert (again.start_index, list(again.token_ids), again.finish_reason) == (1, all_tokens[1:], FinishReason.LENGTH)
    node.core.on_front_message(FRONT, AckFinished(request_id="r", epoch=E1), 0.0)
    assert num_held(node) == (0, 0)


def test_what_cannot_run_here_is_refused_with_the_reason(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(num_prompt_tokens=400), epoch=E1), 0.0)
    (refused,) = said(node, DispatchRefused)
    assert "400" in refused.reason
    assert num_held(node) == (0, 0)


def test_a_stop_lets_go_in_any_state_and_what_comes_late_for_it_is_refused(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    step(node)
    node.core.on_front_message(FRONT, Stop(request_id="r", epoch=E2), 0.0)
    assert num_held(node) == (0, 0)
    said(node, object)
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    assert len(said(node, DispatchRefused)) == 1
    node.core.on_source_message(SOURCE, reserve(epoch=E2), 0.0)
    assert len(said(node, Refused)) == 1


def test_a_stop_of_an_earlier_epoch_leaves_what_runs_now_alone(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    node.core.on_front_message(FRONT, Stop(request_id="r", epoch=E1), 0.0)
    assert run(node)[-1].finish_reason is FinishReason.LENGTH


def test_a_stop_of_a_finished_request_does_not_take_the_next_ones_reservation_along(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    run(node)
    node.core.on_source_message(SOURCE, reserve(epoch=E3), 0.0)
    assert len(said(node, Reserved)) == 1
    node.core.on_front_message(FRONT, Stop(request_id="r", epoch=E1), 0.0)
    assert node.core.snapshot(InstanceStatus.RUNNING).num_reserved_blocks == 2


def test_what_a_source_said_twice_and_arrives_after_the_end_reserves_nothing(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve(), 0.0)
    (reserved,) = said(node, Reserved)
    state = make_state(output_token_ids=(1,))
    baton = Pass(
        request_id="r", epoch=E2, reservation=reserved.reservation, num_blocks=2, num_computed_tokens=6, state=state
    )
    node.core.on_arrived(reserved.reservation, 0, 2, (0, 0))
    node.core.on_source_message(SOURCE, baton, 0.0)
    run(node)
    node.core.on_front_message(FRONT, AckFinished(request_id="r", epoch=E2), 0.0)
    node.core.on_source_message(SOURCE, reserve(), 0.0)
    assert said(node, Refused)
    assert num_held(node) == (0, 0)


def test_a_reserve_said_twice_does_not_refuse_the_baton_that_was_taken(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve(num_tokens=0), 0.0)
    (reserved,) = said(node, Reserved)
    state = make_state()
    baton = Pass(
        request_id="r", epoch=E2, reservation=reserved.reservation, num_blocks=0, num_computed_tokens=0, state=state
    )
    node.core.on_source_message(SOURCE, baton, 0.0)
    node.core.on_source_message(SOURCE, reserve(num_tokens=0), 0.0)
    assert not said(node, Refused)


def test_the_end_of_a_turn_takes_reservations_of_earlier_ones_along(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E3), 0.0)
    run(node)
    node.core.on_source_message(SOURCE, reserve(epoch=E2), 0.0)
    node.core.on_front_message(FRONT, AckFinished(request_id="r", epoch=E3), 0.0)
    assert num_held(node) == (0, 0)


def test_one_id_is_received_once_at_a_time_even_while_it_waits_for_room(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve("big", num_tokens=30), 0.0)
    node.core.on_source_message(SOURCE, reserve("r", epoch=E1), 0.0)
    node.core.on_source_message(SOURCE, reserve("r", epoch=E3), 0.0)
    assert [refused.epoch for refused in said(node, Refused)] == [E3]


def test_room_elsewhere_is_asked_for_only_with_room_here_and_before_the_first_chunk_is_computed(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve("big", num_tokens=30), 0.0)
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1, grant=GRANT), 0.0)
    step(node)
    assert said(node, Reserve) == []
    node.core.on_source_lost(SOURCE)
    assert node.core.plan(0.0) is not None
    assert len(said(node, Reserve)) == 1


def test_a_request_is_frozen_at_its_first_token_and_passed_on_when_there_is_room(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1, grant=GRANT), 0.0)
    assert [update.start_index for update in run(node)] == [0]
    reserved = Reserved(request_id="r", epoch=E2, reservation=9, num_cached_blocks=0)
    node.core.on_receiver_message(RECEIVER, reserved, 0.0)
    transfer, baton = (effect for effect in node.core.effects if isinstance(effect, StartTransfer | ToReceiver))
    assert isinstance(transfer, StartTransfer)
    assert isinstance(baton, ToReceiver)
    assert isinstance(baton.message, Pass)
    node.core.on_receiver_message(RECEIVER, PassTaken(request_id="r", epoch=E2), 0.0)
    node.core.on_transfer_ended(transfer.transfer, None, 0.0)
    assert num_held(node) == (0, 0)


def test_a_refused_handover_goes_on_here(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1, grant=GRANT), 0.0)
    run(node)
    node.core.on_receiver_message(RECEIVER, Refused(request_id="r", epoch=E2, reason="full"), 0.0)
    assert [refused.reason for refused in said(node, GrantRefused)] == ["full"]
    assert run(node)[-1].finish_reason is FinishReason.LENGTH


def test_a_grant_closed_too_late_is_answered(node: Node) -> None:
    node.core.on_front_message(FRONT, CloseGrant(request_id="r", epoch=E2), 0.0)
    assert said(node, PassedOn) == [PassedOn(request_id="r", epoch=E2)]


@pytest.mark.parametrize("num_computed", [0, 7, 9, 30])
def test_a_baton_that_does_not_fit_its_blocks_is_refused_and_ends_nothing_else(node: Node, num_computed: int) -> None:
    node.core.on_source_message(SOURCE, reserve(), 0.0)
    (reserved,) = said(node, Reserved)
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=reserved.reservation,
        num_blocks=2,
        num_computed_tokens=num_computed,
        state=make_state(output_token_ids=(1,)),
    )
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert len(said(node, Refused)) == 1
    assert num_held(node) == (0, 0)


def test_an_activation_is_said_again_until_it_is_acknowledged(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve(), 0.0)
    (reserved,) = said(node, Reserved)
    node.core.on_arrived(reserved.reservation, 0, 2, (0, 0))
    state = make_state(output_token_ids=(1,))
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=reserved.reservation,
        num_blocks=2,
        num_computed_tokens=6,
        state=state,
    )
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert {type(effect) for effect in node.core.effects} == {ToFront, ToSource}
    assert len(said(node, Activated)) == 1
    node.core.tick(0.1)
    assert len(said(node, Activated)) == 1


def test_a_silent_source_loses_its_lease_and_the_blocks_come_back(node: Node) -> None:
    node.core.on_source_message(SOURCE, reserve(), 0.0)
    node.core.tick(4.0)
    assert num_held(node)[1] == 2
    node.core.tick(5.1)
    assert num_held(node) == (0, 0)
    assert len(said(node, Refused)) == 1


def test_what_a_lost_front_asked_for_goes_on_until_nobody_can_want_it_any_more(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    other = make_state(request_id="other", front="another")
    node.core.on_front_message("another", Dispatch(state=other, epoch=E1), 0.0)
    step(node)
    node.core.on_front_joined("another")
    node.core.on_front_lost(FRONT)
    node.core.tick(1.0)
    assert num_held(node)[0] == 2
    node.core.tick(11.1)
    assert num_held(node)[0] == 1
    assert {update.request_id for update in run(node)[-1:]} == {"other"}


def test_a_deadline_ends_a_request_here_even_if_its_front_says_nothing(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(deadline_s=1.0), epoch=E1), 0.0)
    node.core.tick(1.1)
    assert [update.finish_reason for update in updates(node)] == [FinishReason.ABORT]
