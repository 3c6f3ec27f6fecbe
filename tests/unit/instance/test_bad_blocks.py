"""Blocks that come damaged, or from another than the source they were reserved for: counted, each as what it is."""

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from cluster.instance.instance import Instance
from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.outgoing_links import OutgoingLinks
from cluster.messages import BlockTransfer, Epoch, Holder
from cluster.pb import instance_pb2 as pb
from tests.unit.instance.served import RECORD_BYTES, SECRET, Speaker, front_of, served, source_of

pytestmark = pytest.mark.unit

RESERVE = pb.SourceMessage(reserve=pb.Reserve(request_id="r", epoch=pb.Epoch(term=1, n=1), num_tokens=3, lease_s=5.0))


class Unheard:
    def on_sent(self, transfer: BlockTransfer) -> None:
        pass

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        pass


class Peer:
    """Links from an instance whose KV is a single block."""

    def __init__(self, name: str) -> None:
        region = KvRegion(memoryview(bytearray(RECORD_BYTES)), RECORD_BYTES)
        self.links = OutgoingLinks(Holder(name, 1), region, LinkConfig(transport="tcp"), Unheard(), secret=SECRET)
        self.block = BlockTransfer(
            request_id="r",
            epoch=Epoch(1, 1),
            reservation=1,
            first_block=0,
            block_ids=(0,),
            checksums=region.checksums((0,)),
        )


@pytest.fixture
def make_peer() -> Iterator[type[Peer]]:
    peers: list[Peer] = []

    def make(name: str) -> Peer:
        peers.append(Peer(name))
        return peers[-1]

    yield make
    for peer in peers:
        peer.links.close()


@asynccontextmanager
async def reserved() -> AsyncIterator[tuple[Instance, Speaker, Speaker]]:
    """An instance that has reserved room for a source's request; the streams of its front and of the source."""
    async with served() as instance, front_of(instance) as front, source_of(instance) as source:
        source.say(RESERVE)
        await source.hear(lambda message: message.WhichOneof("message") == "reserved")
        yield instance, front, source


async def test_a_damaged_block_is_a_checksum_failure_and_its_reservation_ends(make_peer) -> None:
    async with reserved() as (instance, front, source):
        peer = make_peer("source")
        damaged = replace(peer.block, checksums=(peer.block.checksums[0] ^ 1,))
        peer.links.send(instance.info.link_address, instance.holder, damaged)
        told = await source.hear(lambda message: message.WhichOneof("message") == "refused")
        assert told.refused.reason == "wrong checksum of block 0"
        told = await front.hear(lambda message: message.snapshot.num_bad_blocks == 1)
        assert told.snapshot.num_checksum_failures == 1


async def test_an_offer_refused_for_its_epoch_is_no_checksum_failure(make_peer) -> None:
    async with reserved() as (instance, front, source):
        peer = make_peer("source")
        peer.links.send(instance.info.link_address, instance.holder, replace(peer.block, epoch=Epoch(1, 2)))
        await source.hear(lambda message: message.WhichOneof("message") == "refused")
        told = await front.hear(lambda message: message.snapshot.num_bad_blocks == 1)
        assert told.snapshot.num_checksum_failures == 0


async def test_an_offer_of_another_source_leaves_the_reservation_as_it_is(make_peer) -> None:
    async with reserved() as (instance, front, _source):
        other = make_peer("other")
        other.links.send(instance.info.link_address, instance.holder, replace(other.block, epoch=Epoch(1, 2)))
        told = await front.hear(lambda message: message.snapshot.num_malformed == 1)
        assert (told.snapshot.num_bad_blocks, told.snapshot.num_sequences) == (0, 1)
        assert told.snapshot.num_reserved_blocks > 0
