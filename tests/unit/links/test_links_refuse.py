import pytest

from cluster import failpoints
from cluster.messages import Epoch

from .factories import EPOCH, PATIENCE_S, SOURCE_BLOCKS, TARGET_BLOCKS, Gate

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reservation": 2}, "does not exist"),
        ({"epoch": Epoch(1, 2)}, "another epoch"),
        ({"first_block": 1}, "outside of the reservation"),
    ],
)
def test_an_offer_for_something_else_is_refused(pair, change, reason):
    source, receiver = pair
    before = receiver.content(TARGET_BLOCKS)
    source.send(receiver, source.transfer(SOURCE_BLOCKS, **change))
    assert reason in source.events.next("on_send_failed")[1]
    assert reason in receiver.events.next("on_bad")[1]
    assert receiver.content(TARGET_BLOCKS) == before


@pytest.mark.parametrize(
    "offer",
    [{}, {"epoch": Epoch(1, 2)}, {"first_block": 1}, {"block_ids": SOURCE_BLOCKS[:2]}],
)
def test_an_offer_for_what_another_has_reserved_is_counted_and_ends_nothing(pair, make_node, offer):
    source, receiver = pair
    other = make_node("prefill-1")
    before = receiver.content(TARGET_BLOCKS)
    other.send(receiver, other.transfer(**{"block_ids": SOURCE_BLOCKS, **offer}))
    assert "for another source" in other.events.next("on_send_failed")[1]
    assert receiver.events.next("on_malformed") == ()
    assert receiver.events.is_silent
    assert receiver.content(TARGET_BLOCKS) == before
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    receiver.events.next("on_arrived")


def test_what_is_wrong_with_an_offer_of_another_source_ends_nothing_either(pair, make_node):
    _, receiver = pair
    other = make_node("prefill-1", checksum=False)
    other.send(receiver, other.transfer(SOURCE_BLOCKS))
    assert "for another source" in other.events.next("on_send_failed")[1]
    assert receiver.events.next("on_malformed") == ()
    assert receiver.events.is_silent


def test_a_block_arrives_only_once(pair):
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    assert "arrived already" in source.events.next("on_send_failed")[1]


def test_a_block_damaged_on_its_way_is_not_reported_as_arrived_and_the_link_goes_on(pair):
    source, receiver = pair
    with failpoints.armed("links.receive.record", failpoints.flip):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert "wrong checksum of block" in source.events.next("on_send_failed")[1]
    assert receiver.events.next("on_damaged") == ()
    assert receiver.events.next("on_bad")[0] == 1
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    receiver.events.next("on_arrived")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
    assert receiver.listener.num_links == 1


def test_a_block_that_was_written_again_since_it_was_sealed_does_not_arrive(pair):
    source, receiver = pair
    transfer = source.transfer(SOURCE_BLOCKS)
    source.region.records[SOURCE_BLOCKS[2]] ^= 1
    source.send(receiver, transfer)
    assert source.events.next("on_send_failed")[1] == "wrong checksum of block 2"
    receiver.events.next("on_damaged")
    receiver.events.next("on_bad")
    assert receiver.events.is_silent


def test_a_receiver_that_checks_takes_nothing_unchecked(make_node, transport):
    source, receiver = make_node("prefill-0", transport=transport, checksum=False), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "0 checksums for 5 blocks" in source.events.next("on_send_failed")[1]


def test_a_copy_that_outlasts_the_sources_promise_does_not_arrive(make_node):
    source, receiver = make_node("prefill-0", checksum=False), make_node("decode-0", checksum=False)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)

    def promise_nothing(offer):
        offer.valid_until_ns = 1

    with failpoints.armed("links.source.offer", promise_nothing):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert "gave up" in source.events.next("on_send_failed")[1]
    assert "gave up" in receiver.events.next("on_bad")[1]


def test_a_copy_that_is_late_stops_between_two_records(make_node):
    source = make_node("prefill-0", transport="shm")
    receiver = make_node("decode-0", transfer_timeout_s=0.05)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    before = receiver.content(TARGET_BLOCKS[1:])
    with failpoints.armed("links.receive.record", failpoints.stall(0.06)):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert "no complete transfer within" in receiver.events.next("on_bad")[1]
    assert receiver.content(TARGET_BLOCKS[1:]) == before


def test_blocks_outside_of_the_sources_memory_are_refused(make_node):
    source, receiver = make_node("prefill-0", transport="shm"), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)

    def point_outside(offer):
        offer.block_ids[0] = 16

    with failpoints.armed("links.source.offer", point_outside):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert "outside of the source's region" in source.events.next("on_send_failed")[1]


@pytest.mark.parametrize("where", ["links.source.batch", "links.receive.record"])
def test_a_transfer_that_is_cut_off_does_not_arrive_and_the_link_is_made_again(make_node, where):
    source, receiver = make_node("prefill-0", transport="tcp"), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    with failpoints.armed(where, failpoints.cut):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_send_failed")
        assert "cut off" in receiver.events.next("on_bad")[1]
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    receiver.events.next("on_arrived")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def test_blocks_are_in_quarantine_until_the_link_is_done_with_them(pair):
    source, receiver = pair
    gate = Gate()
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert gate.reached.wait(PATIENCE_S)
        assert not receiver.slots.close(1)
        assert receiver.events.is_silent
        gate.opened.set()
        assert receiver.events.next("on_quiet") == (1,)
    assert "does not exist" in source.events.next("on_send_failed")[1]
    assert receiver.events.is_silent
