"""One instance without its body: a dispatch that waits until nothing is written for an earlier turn any more."""

from dataclasses import replace

import pytest

from cluster.engine.sequence import FinishReason
from cluster.instance.effects import ToFront
from cluster.messages import (
    CloseGrant,
    Dispatch,
    GrantRefused,
    HandOver,
    PassedOn,
    Reserve,
    Reserved,
    StepUpdate,
    Stop,
)
from cluster.role import InstanceRole
from tests.simulated.world import FRONT, Node
from tests.unit.instance.test_core import E1, E2, E3, GRANT, ME, SOURCE, make_state, num_held, run, said
from tests.unit.instance.test_core_fronts import NEXT_LIFE, holdings

pytestmark = pytest.mark.unit


class Waiting(Node):
    """A block of its earlier turn is posted: the dispatch at E2 has to wait, until `quiet_down`."""

    def __init__(self) -> None:
        super().__init__(ME, InstanceRole.MIXED, num_blocks=16, max_num_seqs=4)
        self.core.on_source_message(SOURCE, Reserve(request_id="r", epoch=E1, num_tokens=9, lease_s=5.0), 0.0)
        (reserved,) = said(self, Reserved)
        self._reservation = reserved.reservation
        self.slots.post(self._reservation, SOURCE, E1, 0, 1)

    def quiet_down(self) -> None:
        self.slots.abandon(self._reservation, 0, 1)
        self.core.on_quiet(self.quiet.pop())


@pytest.fixture
def node() -> Waiting:
    return Waiting()


def test_it_begins_when_the_blocks_are_quiet(node: Waiting) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    assert run(node) == []
    node.quiet_down()
    assert run(node)[-1].finish_reason is FinishReason.LENGTH


def test_it_can_be_stopped(node: Waiting) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    node.core.on_front_message(FRONT, Stop(request_id="r", epoch=E2), 0.0)
    node.quiet_down()
    assert run(node) == []
    assert num_held(node) == (0, 0)


def test_the_next_life_of_its_front_hears_of_it_and_of_its_tokens(node: Waiting) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    (held,) = holdings(node)
    assert (held.epoch, held.state.front) == (E2, FRONT)
    node.quiet_down()
    for _ in range(10):
        output = node.core.plan(0.0)
        if output is not None:
            node.core.compute(output, 0.0)
    updates = [it for it in node.core.effects if isinstance(it, ToFront) and isinstance(it.message, StepUpdate)]
    assert {update.front for update in updates} == {NEXT_LIFE}


def test_a_grant_that_is_closed_before_it_begins_is_not_used(node: Waiting) -> None:
    grant = replace(GRANT, epoch=E3)
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2, grant=grant), 0.0)
    node.core.on_front_message(FRONT, CloseGrant(request_id="r", epoch=E3), 0.0)
    assert said(node, PassedOn) == []
    node.quiet_down()
    assert run(node)[-1].finish_reason is FinishReason.LENGTH
    assert said(node, Reserve) == []


def test_it_is_not_handed_over_before_it_begins(node: Waiting) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E2), 0.0)
    grant = replace(GRANT, epoch=E3)
    node.core.on_front_message(FRONT, HandOver(request_id="r", epoch=E2, grant=grant), 0.0)
    assert [refused.reason for refused in said(node, GrantRefused)] == ["it has not begun yet"]
