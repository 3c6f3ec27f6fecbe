import pytest

from cluster.links import kv_region
from cluster.links.piece_events import PieceEvents

from .factories import EPOCH, PATIENCE_S, SOURCE_BLOCKS, TARGET_BLOCKS

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("checksum", [True, False])
def test_blocks_arrive_as_they_were(make_node, transport, checksum):
    source = make_node("prefill-0", transport=transport, checksum=checksum)
    receiver = make_node("decode-0", checksum=checksum)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    transfer = source.transfer(SOURCE_BLOCKS)
    source.send(receiver, transfer)
    assert source.events.next("on_sent") == (transfer,)
    assert receiver.events.next("on_arrived") == (1, 0, 5, transfer.checksums if checksum else ())
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def test_the_engine_knows_of_the_arrival_before_the_source_does(pair, transport):
    source, receiver = pair
    source.links._pieces = PieceEvents(receiver.events)  # one queue shows the order
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    receiver.events.next("on_arrived")
    receiver.events.next("on_sent")


def test_nothing_else_is_written(pair):
    source, receiver = pair
    others = tuple(block_id for block_id in range(16) if block_id not in TARGET_BLOCKS)
    before = receiver.content(others)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    assert receiver.content(others) == before


def test_a_transfer_of_many_batches_arrives(pair, monkeypatch):
    monkeypatch.setattr(kv_region, "MAX_BATCH_BYTES", 2 * 4096)
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def test_parts_of_a_sequence_arrive_one_by_one_over_one_link(pair):
    source, receiver = pair
    for index in range(5):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[index : index + 1], first_block=index))
    assert [receiver.events.next("on_arrived")[1] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
    assert receiver.listener.num_links == 1


def test_both_directions_at_once(make_node, transport):
    one, other = make_node("a", transport=transport, num_blocks=64), make_node("b", transport=transport, num_blocks=64)
    for node, peer in ((one, other), (other, one)):
        for reservation in range(16):
            node.slots.open(
                reservation, peer.holder, EPOCH, (32 + 2 * reservation, 33 + 2 * reservation), first_block=0
            )
    for reservation in range(16):
        for source, receiver in ((one, other), (other, one)):
            source.send(receiver, source.transfer((2 * reservation, 2 * reservation + 1), reservation))
    for node in (one, other):
        told = sorted(node.events._queue.get(timeout=PATIENCE_S)[0] for _ in range(32))
        assert told == ["on_arrived"] * 16 + ["on_sent"] * 16
    low, high = tuple(range(32)), tuple(range(32, 64))
    assert one.content(high) == other.content(low)
    assert other.content(high) == one.content(low)
