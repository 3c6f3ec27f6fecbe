"""What goes wrong in Llumnix's own migration code, and must be impossible here: four defects, (a) to (d).

Each test says which rule prevents it; with that rule taken out, the test fails.
"""

from collections.abc import Callable, Collection

import pytest

from cluster.engine.sequence import SequenceStatus
from cluster.messages import Activated, BlockTransfer, Holder, Pass, PassTaken, Reserve, Stop
from cluster.role import InstanceStatus
from router.ledger import Failure, Step
from tests.simulated.chaos import FINISHED, finish
from tests.simulated.world import FRONT, Node, World
from tests.unit.engine.factories import make_sequence

pytestmark = pytest.mark.simulated

SOURCE, DESTINATION = Holder("mixed-0", 1), Holder("mixed-1", 1)
TO_DESTINATION = ("source", SOURCE, DESTINATION)
TO_SOURCE = ("receiver", DESTINATION, SOURCE)
LINK = ("link", SOURCE, DESTINATION)
MOVING = ("moving", SOURCE, DESTINATION)
FROM_DESTINATION = ("instance", DESTINATION, FRONT)
STOPS_DESTINATION = ("front", FRONT, DESTINATION)

Channel = tuple[str, object, object]
Held = tuple[Channel, type]


def make_world(*, max_tokens: int = 60, num_blocks: int = 24) -> World:
    """`r` decodes in the source, and is to be moved to the destination."""
    world = World(0, num_prefill=0, num_decode=0, num_mixed=2, num_blocks=num_blocks)
    world.ask("r", 10, max_tokens)
    advance(world, lambda: len(world.outputs["r"]) >= 3)
    world.move_to("r", DESTINATION)
    return world


def advance(world: World, until: Callable[[], bool], *, held: Collection[Held] = ()) -> None:
    """Everything happens in turn, but a message that is held stays on its way, and so does what comes after it."""
    for _ in range(2000):
        if until():
            return
        for channel, queue in list(world.channels.items()):
            if queue and (channel, type(queue[0])) not in held:
                world._arrive(*channel, queue.popleft())
        for node in list(world.nodes.values()):
            world.step(node)
        world.pass_time(0.02)
    raise AssertionError("that has not come about")


def until_under_way(world: World, held: Held) -> None:
    """Until a message of that kind is the next to arrive there."""
    channel, kind = held

    def is_next() -> bool:
        queue = world.channels.get(channel)
        return bool(queue) and isinstance(queue[0], kind)

    advance(world, is_next, held=(held,))


def arrive(world: World, channel: Channel) -> None:
    """All that is on its way there does, and nothing else happens."""
    while queue := world.channels.get(channel):
        world._arrive(*channel, queue.popleft())


def destination(world: World) -> Node:
    return world.nodes[DESTINATION]


def num_reserved(world: World) -> int:
    return destination(world).core.snapshot(InstanceStatus.RUNNING).num_reserved_blocks


def holds_nothing(node: Node) -> bool:
    snapshot = node.core.snapshot(InstanceStatus.RUNNING)
    return (
        snapshot.num_sequences == snapshot.num_reserved_blocks == snapshot.num_leaked_blocks == 0
        and snapshot.num_free_blocks == snapshot.num_blocks
        and node.slots.num_reservations == 0
    )


def steps(world: World) -> list[Step]:
    return [note.step for note in world.notes if note.step in (Step.PASSED, Step.KEPT)]


# (a) The destination runs out of memory at a later stage: its reservation is leaked for ever.


def test_a_destination_that_has_no_room_says_so_at_once_and_reserves_nothing() -> None:
    """Rule: a handover that may not wait for room is refused (`Inbound._on_reserve`), and nothing of it is kept."""
    world = make_world()
    until_under_way(world, (TO_DESTINATION, Reserve))
    node = destination(world)
    filler = make_sequence("filler", node.scheduler.block_manager.num_tokens - 8)
    assert node.scheduler.reserve(filler, filler.num_tokens, []) is not None
    arrive(world, TO_DESTINATION)
    assert len(node.scheduler.sequences) == 1
    assert node.core.snapshot(InstanceStatus.RUNNING).num_sequences == 0
    node.scheduler.remove("filler", SequenceStatus.FINISHED_ABORTED)
    finish(world)
    assert steps(world) == [Step.KEPT]
    assert world.ends <= FINISHED


def test_a_request_that_grows_while_its_blocks_travel_never_needs_more_than_was_reserved() -> None:
    """Rule: all room is reserved before the first stage, and a request that has used it up stands still
    (`HandoverSource.must_freeze`); no later stage asks for more, so none can be refused with blocks in hand.
    """
    world = make_world()
    until_under_way(world, (LINK, BlockTransfer))
    reserved = num_reserved(world)
    pass_under_way = [(LINK, BlockTransfer), (TO_DESTINATION, Pass)]
    advance(world, lambda: bool(world.channels[TO_DESTINATION]), held=pass_under_way)
    assert num_reserved(world) == reserved
    advance(world, lambda: bool(steps(world)))
    assert steps(world) == [Step.PASSED]
    finish(world)
    assert world.ends <= FINISHED


def test_memory_that_runs_out_after_the_move_costs_time_and_no_block() -> None:
    """Rule: what was moved is a request like any other: with no block to grow into it is preempted."""
    world = make_world(num_blocks=12, max_tokens=30)
    advance(world, lambda: steps(world) == [Step.PASSED])
    for index in range(3):
        world.ask(f"other-{index}", 12, 20)
    finish(world)
    assert world.ends <= FINISHED


# (b) A copy fails: its reservation is leaked the same way.


def test_a_failed_copy_gives_the_reservation_back_and_the_request_runs_on() -> None:
    """Rule: a source whose transfer failed takes the reservation back (`HandoverSource.on_transfer_failed`: Cancel)."""
    world = make_world()
    until_under_way(world, (LINK, BlockTransfer))
    transfer = world.channels[LINK].popleft()
    world.nodes[SOURCE].core.on_transfer_ended(transfer, "the link is gone", world.now_s)
    world._drain_all()
    arrive(world, TO_DESTINATION)
    assert holds_nothing(destination(world))
    finish(world)
    assert steps(world) == [Step.KEPT]
    assert world.ends <= FINISHED


def test_a_copy_that_arrives_damaged_destroys_the_reservation_at_both_ends() -> None:
    """Rule: a receiver that cannot trust a block closes the reservation and refuses (`HandoverReceiver.on_failed`)."""
    world = make_world()
    until_under_way(world, (LINK, BlockTransfer))
    destination(world).core.on_bad(1, "wrong checksum of block 0")
    world._drain_all()
    assert holds_nothing(destination(world))
    finish(world)
    assert steps(world) == [Step.KEPT]
    assert world.ends <= FINISHED


def test_a_source_that_dies_with_its_copy_leaves_no_reservation_behind() -> None:
    """Rule: a reservation is leased (`Inbound.expire_leases`): nobody has to be told for it to come back."""
    world = make_world()
    until_under_way(world, (LINK, BlockTransfer))
    del world.nodes[SOURCE]  # not even its streams are seen to end
    assert not holds_nothing(destination(world))
    world.pass_time(5.1)
    assert holds_nothing(destination(world))


# (c) The reply to the commit comes later than a call may take: the request runs on both sides.


def test_a_source_that_is_not_answered_does_not_run_what_it_has_passed() -> None:
    """Rule: once the baton is passed, only a refusal of this reservation or the ledger lets it run here (law 3):
    `HandoverSource.tick` repeats the Pass, and never takes time for an answer.
    """
    world = make_world(max_tokens=400, num_blocks=120)
    taken = (TO_SOURCE, PassTaken)
    until_under_way(world, taken)
    num_computed = world.nodes[SOURCE].runner.num_computed_tokens
    advance(world, lambda: not world.asked, held=(taken,))
    assert world.now_s > 5.0  # longer than the source waits until it has doubts
    assert world.nodes[SOURCE].runner.num_computed_tokens == num_computed
    finish(world)
    assert steps(world) == [Step.PASSED]
    assert world.ends <= FINISHED


def test_a_destination_whose_word_comes_after_the_grant_was_closed_has_no_say_and_stops() -> None:
    """Rule: the ledger takes the word of exactly the holder and epoch it has on record (`Ledger._hears`, law 2)."""
    world = make_world()
    late = [(TO_SOURCE, PassTaken), (FROM_DESTINATION, Activated), (STOPS_DESTINATION, Stop)]
    advance(world, lambda: steps(world) == [Step.KEPT], held=late)  # the source has doubts, and the ledger decides
    assert isinstance(world.channels[FROM_DESTINATION][0], Activated)
    num_tokens = len(world.outputs["r"])
    advance(world, lambda: len(world.outputs["r"]) > num_tokens, held=late)
    arrive(world, FROM_DESTINATION)
    assert world.ledger.sole_holder("r") == SOURCE
    arrive(world, STOPS_DESTINATION)
    assert holds_nothing(destination(world))
    finish(world)
    assert steps(world) == [Step.KEPT]
    assert world.ends <= FINISHED


# (d) An abort during the last stage is lost: the request runs to its end at the destination.


@pytest.mark.parametrize("first", [STOPS_DESTINATION, TO_DESTINATION], ids=["told before", "told after"])
def test_an_abort_while_the_baton_is_in_the_air_ends_the_request_on_both_sides(first: Channel) -> None:
    """Rule: the ledger tells everybody who may have something of a request to stop (`Entry.holders`), and whoever is
    told destroys what is reserved for it (`InstanceCore._on_stop`), whether the baton is there or not.
    """
    world = make_world()
    until_under_way(world, (TO_DESTINATION, Pass))
    world.abort("r")
    arrive(world, first)
    arrive(world, LINK)
    arrive(world, MOVING)
    arrive(world, TO_DESTINATION if first == STOPS_DESTINATION else STOPS_DESTINATION)
    assert holds_nothing(destination(world))
    finish(world)
    assert destination(world).runner.num_computed_tokens == 0
    assert world.ends == {Failure.ABORTED}


def test_an_abort_that_overtakes_the_whole_handover_is_remembered() -> None:
    """Rule: a stop raises a fence (`Fences`): what comes later for the same epoch, a reservation even, is refused."""
    world = make_world()
    until_under_way(world, (TO_DESTINATION, Reserve))
    world.abort("r")
    arrive(world, STOPS_DESTINATION)
    arrive(world, TO_DESTINATION)
    assert holds_nothing(destination(world))
    finish(world)
    assert world.ends == {Failure.ABORTED}
