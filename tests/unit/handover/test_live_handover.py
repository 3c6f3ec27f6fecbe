"""The source of a request that decodes on while its blocks travel, stage by stage."""

import pytest

from cluster.handover.protocol.source import HandoverSource, Release, RunOn, Send, SourceState, Terms, Transfer
from cluster.messages import Cancel, Pass, Reserve
from tests.unit.handover.test_handover_protocol import GRANT, STATE, refused, reserved

pytestmark = pytest.mark.unit


def make_source(max_stages: int = 3) -> HandoverSource:
    terms = Terms(decodes_on=True, give_up_at_s=10.0, repeat_s=0.5, doubt_after_s=5.0, max_stages=max_stages)
    source = HandoverSource("r", GRANT, terms)
    (reserve,) = source.start(200, (), 5.0)
    assert isinstance(reserve, Send)
    assert isinstance(reserve.message, Reserve)
    assert not reserve.message.may_wait
    return source


def test_a_stage_carries_what_became_full_during_the_one_before() -> None:
    source = make_source()
    assert source.on_reserved(reserved(), 10, 0.0) == [Transfer(3, 0, 10)]
    assert source.on_sealed(12, 0.0) == []
    assert source.on_transferred(4, 0.0) == []
    assert source.on_transferred(6, 0.0) == [Transfer(3, 10, 2)]
    assert source.stage == 2


def test_it_stands_still_when_two_blocks_at_most_are_left() -> None:
    source = make_source()
    assert not source.must_freeze(11, 100)
    source.on_reserved(reserved(), 10, 0.0)
    source.on_transferred(9, 0.0)
    assert source.must_freeze(11, 100)
    assert not source.must_freeze(12, 100)


def test_what_is_there_already_counts() -> None:
    source = make_source()
    assert source.on_reserved(reserved(num_cached_blocks=10), 10, 0.0) == []
    assert source.must_freeze(11, 100)


def test_it_stands_still_after_the_last_stage_however_much_is_left() -> None:
    source = make_source(max_stages=1)
    source.on_reserved(reserved(), 10, 0.0)
    source.on_sealed(20, 0.0)
    assert not source.must_freeze(21, 100)
    assert source.on_transferred(10, 0.0) == []
    assert source.must_freeze(21, 100)


def test_without_stages_it_stands_still_at_once() -> None:
    source = make_source(max_stages=0)
    assert source.on_reserved(reserved(), 10, 0.0) == []
    assert source.must_freeze(11, 100)
    transfer, baton = source.on_frozen(11, 170, 1, STATE, 0.0)
    assert transfer == Transfer(3, 0, 11)
    assert isinstance(baton, Send)


def test_it_stands_still_before_it_outgrows_the_room_that_was_made() -> None:
    source = make_source()
    source.on_reserved(reserved(), 10, 0.0)
    assert not source.must_freeze(11, 199)
    assert source.must_freeze(11, 200)


def test_the_last_transfer_and_the_baton_leave_together() -> None:
    source = make_source()
    source.on_reserved(reserved(), 10, 0.0)
    source.on_transferred(10, 0.0)
    transfer, baton = source.on_frozen(11, 170, 4, STATE, 0.0)
    assert transfer == Transfer(3, 10, 1)
    assert isinstance(baton, Send)
    assert isinstance(baton.message, Pass)
    assert baton.message.num_reported_tokens == 4
    assert not source.must_freeze(11, 171)
    assert source.on_pass_taken() == [Release()]


def test_a_request_without_blocks_changes_queues_with_the_first_answer() -> None:
    source = make_source()
    assert source.on_frozen(0, 0, 0, STATE, 0.0) == []
    (baton,) = source.on_reserved(reserved(), 0, 0.0)
    assert isinstance(baton, Send)
    assert isinstance(baton.message, Pass)
    assert baton.message.num_blocks == 0


@pytest.mark.parametrize("stage", [1, 2])
def test_a_failure_in_any_stage_leaves_it_running_here(stage: int) -> None:
    source = make_source()
    source.on_reserved(reserved(), 10, 0.0)
    if stage == 2:
        source.on_sealed(12, 0.0)
        source.on_transferred(10, 0.0)
    cancel, run_on = source.on_transfer_failed("cut")
    assert (cancel, type(run_on)) == (Send(Cancel(request_id="r", epoch=GRANT.epoch)), RunOn)
    assert source.state is SourceState.RAN_ON
    assert source.on_transferred(10, 0.0) == []
    assert source.on_refused(refused()) == []
