"""One instance without its body: what it keeps for a front that comes back, or for its next life."""

import pytest

from cluster.engine.sequence import FinishReason
from cluster.messages import AckFinished, Dispatch, Epoch, Held, Holdings, Pass, PassTaken, Refused, Reserve
from cluster.role import InstanceRole, InstanceStatus
from tests.simulated.world import FRONT, Node
from tests.unit.instance.test_core import E1, E2, GRANT, ME, RECEIVER, SOURCE, make_state, num_held, run, said, step
from tests.unit.instance.test_core_moves import hand_over

pytestmark = pytest.mark.unit

NEXT_LIFE = "front/2"


@pytest.fixture
def node() -> Node:
    return Node(ME, InstanceRole.MIXED, num_blocks=16, max_num_seqs=4)


def holdings(node: Node, front: str = NEXT_LIFE) -> tuple[Held, ...]:
    said(node, object)
    node.core.on_front_joined(front)
    (message,) = said(node, Holdings)
    return message.held


def test_one_who_has_nothing_says_so(node: Node) -> None:
    assert holdings(node) == ()


def test_the_next_life_hears_of_all_that_runs_and_gets_its_tokens_from_there_on(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    step(node)
    node.core.on_front_lost(FRONT)
    step(node)
    (held,) = holdings(node)
    assert (held.epoch, len(held.state.output_token_ids), held.finish_reason) == (E1, 2, None)
    got = run(node)
    assert [update.start_index for update in got] == [2, 3]


def test_a_request_that_ended_meanwhile_is_told_with_its_end(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    node.core.on_front_lost(FRONT)
    run(node)
    (held,) = holdings(node)
    assert (len(held.state.output_token_ids), held.finish_reason) == (4, FinishReason.LENGTH)


def test_an_acknowledged_request_is_remembered_for_a_while_and_weighs_nothing(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    run(node)
    node.core.on_front_message(FRONT, AckFinished(request_id="r", epoch=E1), 1.0)
    assert num_held(node) == (0, 0)
    (held,) = holdings(node)
    assert held.finish_reason is FinishReason.LENGTH
    node.core.tick(31.1)
    assert holdings(node, "front/3") == ()


def test_a_handover_under_way_is_told(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(max_tokens=20), epoch=E1), 0.0)
    step(node)
    hand_over(node)
    (held,) = holdings(node)
    assert held.grant_epoch == GRANT.epoch


def test_a_source_that_runs_on_outranks_the_grant_that_was_refused(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(max_tokens=20), epoch=E1), 0.0)
    step(node)
    hand_over(node)
    node.core.on_receiver_message(RECEIVER, Refused(request_id="r", epoch=E2, reason="full"), 0.0)
    (held,) = holdings(node)
    assert (held.outranks, held.grant_epoch) == (E2, None)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_no_baton_of_an_earlier_term_is_taken_once_the_next_was_told_what_is_here(node: Node, when: str) -> None:
    """Or the request would be where nobody knows: its source reports that it passed it, and we have nothing."""
    reserve = Reserve(request_id="r", epoch=E2, num_tokens=9, lease_s=5.0)
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=1,
        num_blocks=2,
        num_computed_tokens=6,
        state=make_state(output_token_ids=(1,)),
    )
    if when != "after":
        node.core.on_source_message(SOURCE, reserve, 0.0)
    if when == "before":
        node.core.on_source_message(SOURCE, baton, 0.0)  # its blocks are still on their way
    node.core.on_front_joined(NEXT_LIFE)
    node.core.on_source_message(SOURCE, baton if when == "between" else reserve, 0.0)
    refused = said(node, Refused)
    assert refused
    assert {message.reason for message in refused} == {"term 2 has begun"}
    assert num_held(node) == (0, 0)


def test_a_baton_that_was_taken_in_time_is_answered_in_any_term(node: Node) -> None:
    node.core.on_source_message(SOURCE, Reserve(request_id="r", epoch=E2, num_tokens=0, lease_s=5.0), 0.0)
    baton = Pass(request_id="r", epoch=E2, reservation=1, num_blocks=0, num_computed_tokens=0, state=make_state())
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert [held.epoch for held in holdings(node)] == [E2]
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert len(said(node, PassTaken)) == 1


def test_what_an_earlier_term_still_says_is_dropped_and_counted(node: Node) -> None:
    node.core.on_front_joined(NEXT_LIFE)
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    snapshot = node.core.snapshot(InstanceStatus.RUNNING)
    assert (snapshot.num_sequences, snapshot.num_fenced) == (0, 1)


def test_the_end_of_an_old_stream_does_not_take_the_new_ones_requests_along(node: Node) -> None:
    node.core.on_front_joined(NEXT_LIFE)
    node.core.on_front_message(NEXT_LIFE, Dispatch(state=make_state(front=NEXT_LIFE), epoch=Epoch(2, 1)), 0.0)
    node.core.on_front_lost(FRONT)
    node.core.tick(0.0)
    node.core.tick(60.0)
    assert num_held(node)[0] == 1


def test_a_front_that_comes_back_counts_its_dispatches_from_one(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1, number=57), 0.0)
    node.core.on_front_joined(FRONT)
    assert node.core.num_dispatches_seen(FRONT) == 0
