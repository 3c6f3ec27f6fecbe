"""One instance without its body: requests that move away while they run, and that come without KV."""

import pytest

from cluster.engine.sequence import FinishReason
from cluster.instance.effects import StartTransfer
from cluster.messages import (
    Activated,
    BlockTransfer,
    Cancel,
    Dispatch,
    DispatchRefused,
    Epoch,
    GrantRefused,
    HandOver,
    Pass,
    PassTaken,
    Refused,
    Reserve,
    Reserved,
    SetRole,
    TokenUpdate,
)
from cluster.role import InstanceRole, InstanceStatus
from tests.simulated.world import FRONT, Node
from tests.unit.engine.factories import BLOCK_SIZE
from tests.unit.instance.test_core import (
    E1,
    E2,
    E3,
    GRANT,
    ME,
    RECEIVER,
    SOURCE,
    make_state,
    num_held,
    run,
    said,
    step,
    updates,
)

pytestmark = pytest.mark.unit


@pytest.fixture
def node() -> Node:
    return Node(ME, InstanceRole.MIXED, num_blocks=16, max_num_seqs=4)


def dispatched(node: Node, num_prompt_tokens: int = 6, num_steps: int = 2, max_tokens: int = 20) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(num_prompt_tokens, max_tokens), epoch=E1), 0.0)
    for _ in range(num_steps):
        step(node)
    said(node, object)


def hand_over(node: Node, epoch: Epoch = E1) -> None:
    node.core.on_front_message(FRONT, HandOver(request_id="r", epoch=epoch, grant=GRANT), 0.0)


def answer(node: Node, num_cached_blocks: int = 0) -> None:
    message = Reserved(request_id="r", epoch=E2, reservation=9, num_cached_blocks=num_cached_blocks)
    node.core.on_receiver_message(RECEIVER, message, 0.0)


def transfers(node: Node) -> list[BlockTransfer]:
    return [effect.transfer for effect in node.core.effects if isinstance(effect, StartTransfer)]


def test_it_decodes_on_while_its_blocks_travel_and_stands_still_for_the_last(node: Node) -> None:
    dispatched(node, num_prompt_tokens=10 * BLOCK_SIZE, num_steps=4)
    hand_over(node)
    (reserve,) = said(node, Reserve)
    assert reserve.num_tokens > 10 * BLOCK_SIZE + 2
    assert len(reserve.block_hashes) == 10
    answer(node)
    sent, batons = [], []
    while not batons:  # a piece at a time, and a token between them
        sent += (pieces := transfers(node))
        batons = said(node, Pass)
        for piece in pieces:
            node.core.on_transfer_ended(piece, None, 0.0)
        step(node)
    assert len(sent) >= 3
    assert [block for it in sent for block in range(it.first_block, it.first_block + len(it.block_ids))] == list(
        range(batons[0].num_blocks)
    )
    assert len(batons[0].state.output_token_ids) > 1
    node.core.on_receiver_message(RECEIVER, PassTaken(request_id="r", epoch=E2), 0.0)
    assert num_held(node) == (0, 0)


def test_the_tokens_go_on_during_a_move_that_takes_long(node: Node) -> None:
    dispatched(node, num_prompt_tokens=6 * BLOCK_SIZE)
    hand_over(node)
    answer(node)
    for _ in range(4):
        step(node)
    assert len(updates(node)) == 4


@pytest.mark.parametrize("why", ["unknown", "other epoch", "ended", "moving"])
def test_what_cannot_be_handed_over_is_refused_and_nothing_changes(node: Node, why: str) -> None:
    if why != "unknown":
        dispatched(node, num_steps=20 if why == "ended" else 2, max_tokens=4 if why == "ended" else 20)
    if why == "moving":
        hand_over(node)
        said(node, object)
    before = num_held(node)
    hand_over(node, E3 if why == "other epoch" else E1)
    (refused,) = said(node, GrantRefused)
    assert refused.epoch == E2
    assert (
        refused.reason
        == {
            "unknown": "it is not here",
            "other epoch": "it is not here",
            "ended": "it has ended",
            "moving": "it is being handed over already",
        }[why]
    )
    assert num_held(node) == before


def test_a_move_that_is_refused_costs_no_token(node: Node) -> None:
    dispatched(node)
    hand_over(node)
    node.core.on_receiver_message(RECEIVER, Refused(request_id="r", epoch=E2, reason="full"), 0.0)
    assert [refused.reason for refused in said(node, GrantRefused)] == ["full"]
    assert run(node)[-1].finish_reason is FinishReason.LENGTH


def test_a_prompt_given_up_while_its_blocks_travel_keeps_those_until_they_are_read(node: Node) -> None:
    state = make_state(10 * BLOCK_SIZE, 20)
    node.core.on_front_message(FRONT, Dispatch(state=state, epoch=E1, grant=GRANT), 0.0)
    step(node)
    answer(node)
    step(node)
    under_way = transfers(node)
    assert under_way
    output = node.core.plan(0.0)
    assert output is not None
    node.core.give_up(output, "no memory", 0.0)
    cancel, refused = said(node, Cancel | DispatchRefused)
    assert (cancel.epoch, refused.may_run_elsewhere) == (E2, True)
    assert node.scheduler.block_manager.num_free_blocks == 16 - sum(len(each.block_ids) for each in under_way)
    for transfer in under_way:
        node.core.on_transfer_ended(transfer, None, 0.0)
    assert node.scheduler.block_manager.num_free_blocks == 16
    node.scheduler.check_integrity()


def test_a_request_that_ends_on_the_move_takes_its_reservation_back(node: Node) -> None:
    dispatched(node, num_prompt_tokens=4 * BLOCK_SIZE, max_tokens=4)
    hand_over(node)
    answer(node)
    first = transfers(node)
    assert run(node)[-1].finish_reason is FinishReason.LENGTH
    for transfer in first:
        node.core.on_transfer_ended(transfer, None, 0.0)
    assert node.core.snapshot(InstanceStatus.RUNNING).handovers == ()


def test_a_waiting_request_changes_queues_without_blocks(node: Node) -> None:
    node.core.on_front_message(FRONT, Dispatch(state=make_state(), epoch=E1), 0.0)
    hand_over(node)
    (reserve,) = said(node, Reserve)
    assert (reserve.num_tokens, reserve.block_hashes) == (0, ())
    assert run(node) == []  # it stands still
    answer(node)
    (baton,) = said(node, Pass)
    assert (baton.num_blocks, baton.num_computed_tokens) == (0, 0)


def test_a_request_that_comes_without_kv_waits_for_blocks_as_any_other(node: Node) -> None:
    node.core.on_source_message(SOURCE, Reserve(request_id="r", epoch=E2, num_tokens=0, lease_s=5.0), 0.0)
    (reserved,) = said(node, Reserved)
    assert num_held(node) == (1, 0)
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=reserved.reservation,
        num_blocks=0,
        num_computed_tokens=0,
        state=make_state(),
    )
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert len(said(node, Activated)) == 1
    assert [update.start_index for update in run(node)] == [0, 1, 2, 3]


def test_one_that_must_not_wait_is_refused_when_there_is_no_room_now(node: Node) -> None:
    first = Reserve(request_id="big", epoch=E1, num_tokens=15 * BLOCK_SIZE, lease_s=5.0)
    node.core.on_source_message(SOURCE, first, 0.0)
    hurried = Reserve(request_id="r", epoch=E2, num_tokens=3 * BLOCK_SIZE, lease_s=5.0, may_wait=False)
    node.core.on_source_message(SOURCE, hurried, 0.0)
    (refused,) = said(node, Refused)
    assert refused.reason == f"no room for {3 * BLOCK_SIZE} tokens now"
    assert num_held(node)[0] == 1


@pytest.mark.parametrize("kind", ["pass", "cancel"])
def test_only_who_reserved_can_use_a_reservation_or_take_it_back(node: Node, kind: str) -> None:
    node.core.on_source_message(SOURCE, Reserve(request_id="r", epoch=E2, num_tokens=0, lease_s=5.0), 0.0)
    (reserved,) = said(node, Reserved)
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=reserved.reservation,
        num_blocks=0,
        num_computed_tokens=0,
        state=make_state(),
    )
    stranger = baton if kind == "pass" else Cancel(request_id="r", epoch=E2)
    node.core.on_source_message(RECEIVER, stranger, 0.0)
    assert len(said(node, Refused)) == 1
    node.core.on_source_message(SOURCE, baton, 0.0)
    assert len(said(node, Activated)) == 1


def test_tokens_that_the_front_has_are_not_all_said_again(node: Node) -> None:
    node.core.on_source_message(SOURCE, Reserve(request_id="r", epoch=E2, num_tokens=50, lease_s=5.0), 0.0)
    (reserved,) = said(node, Reserved)
    state = make_state(num_prompt_tokens=6, max_tokens=40, output_token_ids=tuple(range(20)))
    num_blocks = -(-25 // BLOCK_SIZE)
    node.core.on_arrived(reserved.reservation, 0, num_blocks, (0,) * num_blocks)
    baton = Pass(
        request_id="r",
        epoch=E2,
        reservation=reserved.reservation,
        num_blocks=num_blocks,
        num_computed_tokens=25,
        num_reported_tokens=20,
        state=state,
    )
    node.core.on_source_message(SOURCE, baton, 0.0)
    step(node)
    (update,) = updates(node)
    assert isinstance(update, TokenUpdate)
    assert update.start_index == 12
    assert len(update.token_ids) == 9


def test_a_dispatch_of_a_later_turn_takes_the_place_of_an_earlier_one(node: Node) -> None:
    dispatched(node, num_steps=3)
    later = make_state(max_tokens=20, output_token_ids=(1, 2))
    node.core.on_front_message(FRONT, Dispatch(state=later, epoch=E3), 0.0)
    assert {update.epoch for update in run(node)} == {E3}
    node.core.on_front_message(FRONT, Dispatch(state=later, epoch=E2), 0.0)
    assert len(said(node, DispatchRefused)) == 1


def test_a_role_is_taken_without_touching_what_runs(node: Node) -> None:
    dispatched(node)
    node.core.on_front_message(FRONT, SetRole(role=InstanceRole.PREFILL), 0.0)
    assert node.core.snapshot(InstanceStatus.RUNNING).role is InstanceRole.PREFILL
    assert run(node)[-1].finish_reason is FinishReason.LENGTH
