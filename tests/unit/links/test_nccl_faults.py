"""Links over NCCL when something goes wrong: whatever stalls, dies or refuses, it ends in time and costs one link."""

from collections.abc import Callable, Iterator

import pytest

from cluster import failpoints
from cluster.links import nccl_channel, nccl_channels, nccl_transfer
from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_channel import ChannelState
from cluster.links.nccl_channels import NcclChannels
from cluster.links.nccl_device import UNIQUE_ID_BYTES
from cluster.links.nccl_transfer import NcclSender
from cluster.links.record_part import RecordPart
from cluster.messages import Holder
from cluster.pb.links_pb2 import Post

from .factories import EPOCH, PATIENCE_S, SOURCE_BLOCKS, TARGET_BLOCKS
from .fake_nccl import FakeCupy, World, make_world
from .nccl_nodes import GpuNode

pytestmark = pytest.mark.unit

SHORT_S = 1.0


@pytest.fixture
def world() -> Iterator[World]:
    with make_world() as world:
        yield world


@pytest.fixture
def make_gpu_node(world: World) -> Iterator[Callable[..., GpuNode]]:
    nodes: list[GpuNode] = []

    def make(name: str, *, max_communicators: int = 4, **options) -> GpuNode:
        nodes.append(GpuNode(world, name, LinkConfig(**options), max_communicators=max_communicators))
        source = Holder(name.replace("decode", "prefill"), 1)
        nodes[-1].slots.open(1, source, EPOCH, TARGET_BLOCKS, first_block=0)
        return nodes[-1]

    yield make
    world.heal()
    for node in nodes:
        node.close()


@pytest.fixture
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (nccl_channel, nccl_channels, nccl_transfer):
        monkeypatch.setattr(module, "DEATH_GRACE_S", 0.05)


def assert_works(source: GpuNode, receiver: GpuNode) -> None:
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    receiver.events.next("on_arrived")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def wait_until_posted(world: World) -> None:
    """Both ends of the only communicator have a message at work."""

    def is_posted() -> bool:
        return [end.at_work() is not None for pair in world.communicators.values() for end in pair.values()] == [
            True
        ] * 2

    with world.changed:
        assert world.changed.wait_for(is_posted, PATIENCE_S)


def wait_until_quiet(node: GpuNode) -> None:
    for link in list(node.listener._links):
        link.join()


@pytest.mark.parametrize("fault", ["still_setups", "still"])
@pytest.mark.parametrize("faulty", ["source", "receiver"])
def test_a_stall_ends_with_the_deadline_and_costs_no_other_link(world, make_gpu_node, fault, faulty):
    source = make_gpu_node("prefill-0", transfer_timeout_s=SHORT_S)
    others = make_gpu_node("prefill-1"), make_gpu_node("decode-1")
    stalled = make_gpu_node("decode-0")
    getattr(world, fault).add(source.cupy if faulty == "source" else stalled.cupy)
    source.send(stalled, source.transfer(SOURCE_BLOCKS))
    assert f"within {SHORT_S:g} s" in source.events.next("on_send_failed")[1]
    assert_works(*others)
    assert stalled.events.next("on_bad")[0] == 1
    world.heal()
    assert_works(source, stalled)


def test_a_transfer_that_was_given_up_writes_nothing_later(world, make_gpu_node):
    source, receiver = make_gpu_node("prefill-0", transfer_timeout_s=SHORT_S), make_gpu_node("decode-0")
    world.still.add(receiver.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    before = receiver.content(TARGET_BLOCKS)  # what was unpacked from a message that never came, while it was posted
    world.heal()
    assert receiver.slots.close(1)
    assert receiver.content(TARGET_BLOCKS) == before
    assert world.delivered == []


@pytest.mark.parametrize("lost", ["source", "receiver"])
def test_an_asynchronous_error_ends_the_transfer_long_before_its_deadline(world, make_gpu_node, lost):
    source, receiver = make_gpu_node("prefill-0", transfer_timeout_s=1e6), make_gpu_node("decode-0")
    world.still.add(receiver.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    wait_until_posted(world)
    world.lose(source.cupy if lost == "source" else receiver.cupy)
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    world.heal()
    assert_works(source, receiver)


def test_an_error_between_two_transfers_means_a_new_communicator(world, make_gpu_node):
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0")
    assert_works(source, receiver)
    world.lose(receiver.cupy)
    world.heal()
    receiver.slots.open(2, source.holder, EPOCH, (0,), first_block=0)
    source.send(receiver, source.transfer((5,), reservation=2))
    source.events.next("on_sent")
    assert receiver.content((0,)) == source.content((5,))
    assert world.num_communicators == 4


def test_a_communicator_that_is_still_at_it_is_not_in_trouble(world, make_gpu_node):
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0")
    world.still.add(receiver.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    wait_until_posted(world)
    for pair in world.communicators.values():
        for end in pair.values():
            end.trouble = KeyError(7)  # what cupy makes of ncclInProgress
    world.heal()
    source.events.next("on_sent")


def test_what_cannot_be_enqueued_fails_and_frees_the_peer(world, make_gpu_node):
    world.refuse_sends = 1
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "unhandled cuda error" in source.events.next("on_send_failed")[1]
    assert "the link was closed" in receiver.events.next("on_bad")[1]
    assert_works(source, receiver)


def test_a_first_use_that_blocks_is_ended_by_the_abort(world, make_gpu_node):
    world.connects_at_first_use = True
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0", transfer_timeout_s=SHORT_S)
    with failpoints.armed("links.source.batch", lambda: _wait_for_death(receiver)):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        receiver.events.next("on_bad")
        source.events.next("on_send_failed")
    assert_works(source, receiver)


def _wait_for_death(node: GpuNode) -> None:
    with node.region.channels._changed:
        node.region.channels._changed.wait_for(lambda: not node.region.channels._channels, PATIENCE_S)


def test_of_a_communicator_that_is_being_aborted_nothing_more_is_asked(world):
    """For a while cupy still has the pointer of what NCCL has freed."""
    said: list[str] = []

    class Freed:
        def abort(self) -> None:
            for use in (communicator.send, communicator.receive):
                with pytest.raises(RuntimeError, match="was aborted"):
                    use(0, 1, None)
            said.append(communicator.check())

    cupy = FakeCupy(world)
    cupy.cuda.nccl.NcclCommunicator = lambda *_: Freed()
    communicator = CupyDevice(0, cupy).init_rank(bytes(UNIQUE_ID_BYTES), 0)
    communicator.abort()
    assert "was aborted" in said[0]


@pytest.mark.parametrize("fault", ["blocked_aborts", "deaf"])
def test_blocks_stay_in_quarantine_until_the_operation_is_known_dead(world, make_gpu_node, short_grace, fault):
    source = make_gpu_node("prefill-0", transfer_timeout_s=SHORT_S)
    receiver = make_gpu_node("decode-0", transfer_timeout_s=SHORT_S)
    world.still.add(receiver.cupy)
    getattr(world, fault).update({source.cupy, receiver.cupy})
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    wait_until_posted(world)
    source.links.close()
    wait_until_quiet(receiver)
    assert source.events.is_silent
    assert not receiver.slots.close(1)
    assert receiver.events.is_silent
    world.heal()
    source.events.next("on_send_failed")
    assert receiver.events.next("on_quiet") == (1,)


@pytest.mark.parametrize("late", ["source", "receiver"])
def test_an_abort_that_waits_for_the_peers_delays_nothing(world, make_gpu_node, caplog, late):
    """Who gives up first tells the other one at once."""
    source = make_gpu_node("prefill-0", transfer_timeout_s=1e6 if late == "source" else SHORT_S)
    receiver = make_gpu_node("decode-0", transfer_timeout_s=1e6 if late == "receiver" else SHORT_S)
    world.aborts_together = True
    world.still.add(receiver.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    assert "does not end" not in caplog.text


@pytest.mark.parametrize("closed", ["source", "receiver"])
def test_closing_ends_what_is_under_way(world, make_gpu_node, closed):
    source, receiver = make_gpu_node("prefill-0", transfer_timeout_s=1e6), make_gpu_node("decode-0")
    world.still.add(source.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    wait_until_posted(world)
    (source if closed == "source" else receiver).close()
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    assert receiver.slots.close(1)


def test_a_set_up_that_was_given_up_counts_until_it_ends(world, make_gpu_node, short_grace):
    source = make_gpu_node("prefill-0", transfer_timeout_s=SHORT_S)
    receiver = make_gpu_node("decode-0", max_communicators=1)
    world.still_setups.add(receiver.cupy)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    wait_until_quiet(receiver)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    reason = "all 1 NCCL communicators are in use; 1 of them do not end"
    assert source.events.next("on_send_failed")[1] == reason
    assert receiver.events.next("on_bad")[1] == reason
    world.heal()
    _wait_for_death(receiver)
    assert_works(source, receiver)


def test_a_damaged_block_is_refused_and_the_communicator_kept(world, make_gpu_node):
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0")
    transfer = source.transfer(SOURCE_BLOCKS)
    source.records[SOURCE_BLOCKS[2]][7] ^= 1
    source.send(receiver, transfer)
    assert source.events.next("on_send_failed")[1] == "wrong checksum of block 2"
    receiver.events.next("on_damaged")
    assert receiver.events.next("on_bad") == (1, "wrong checksum of block 2")
    assert_works(source, receiver)
    assert world.num_communicators == 2


@pytest.mark.parametrize(
    ("post", "said"),
    [
        (Post(communicator=1, unique_id=bytes(128), message_blocks=[1, 1]), "messages of [1, 1] blocks"),
        (Post(communicator=1, unique_id=bytes(128), message_blocks=[3, 0]), "messages of [3, 0] blocks"),
        (Post(communicator=1, unique_id=bytes(7), message_blocks=[3]), "malformed communicator"),
        (Post(unique_id=bytes(128), message_blocks=[3]), "malformed communicator"),
        (Post(communicator=1, message_blocks=[3]), "which is not there"),
    ],
)
def test_a_post_that_makes_no_sense_is_not_followed(make_gpu_node, post, said):
    region = make_gpu_node("prefill-0").region
    part = RecordPart(num_bytes=region.record_bytes)
    with pytest.raises(LinkError) as caught:
        NcclSender(None, region).send(post, part, (3, 5, 7), Deadline.after(PATIENCE_S, "answer"))
    assert said in str(caught.value)
    assert region.channels.num_channels == 0


def test_a_held_communicator_does_not_make_room(make_gpu_node):
    channels = make_gpu_node("prefill-0", max_communicators=1).region.channels
    channel = channels.open(Deadline.after(PATIENCE_S, "room"))
    with pytest.raises(LinkError, match="all 1 NCCL communicators are in use"):
        channels.open(Deadline.after(PATIENCE_S, "room"))
    channel.close()
    assert channel.death.wait(PATIENCE_S)
    assert channel.state is ChannelState.DEAD
    assert not channels.hold(channel)
    assert channels.open(Deadline.after(PATIENCE_S, "room")).state is ChannelState.SETTING_UP


def test_a_thread_that_cannot_use_the_device_fails_its_calls(make_gpu_node):
    class Deviceless:
        def bind(self) -> None:
            raise RuntimeError("out of memory")

    channel = NcclChannels(Deviceless(), 1).open(Deadline.after(PATIENCE_S, "room"))
    with pytest.raises(LinkError, match="out of memory"):
        channel.make_unique_id(lambda: None)
    assert channel.death.wait(PATIENCE_S)
