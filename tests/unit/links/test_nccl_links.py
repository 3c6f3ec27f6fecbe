"""Links over NCCL between two nodes with a fake GPU: what arrives, what is reused, what is negotiated."""

import sys
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from cluster.links import nccl_messages
from cluster.links.config import LinkConfig
from cluster.links.device_region import TransportUnavailable, check_transport
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable

from .factories import EPOCH, RECORD_BYTES, SOURCE_BLOCKS, TARGET_BLOCKS
from .fake_nccl import FakeCupy, FakeKernel, World, make_world
from .nccl_nodes import GpuNode

pytestmark = pytest.mark.unit

MakeGpuNode = Callable[..., GpuNode]


@pytest.fixture(params=[0, 1, 2])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    with make_world(request.param) as world:
        yield world


@pytest.fixture
def make_gpu_node(world: World) -> Iterator[MakeGpuNode]:
    nodes: list[GpuNode] = []

    def make(name: str, *, num_blocks: int = 16, max_communicators: int = 4, **options) -> GpuNode:
        config = LinkConfig(**options)
        nodes.append(GpuNode(world, name, config, num_blocks=num_blocks, max_communicators=max_communicators))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture
def gpu_pair(make_gpu_node: MakeGpuNode) -> tuple[GpuNode, GpuNode]:
    source, receiver = make_gpu_node("prefill-0"), make_gpu_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    return source, receiver


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("transport", ["auto", "nccl"])
def test_blocks_arrive_as_they_were_and_nothing_else_is_written(make_gpu_node, checksum, transport):
    source = make_gpu_node("prefill-0", transport=transport, checksum=checksum)
    receiver = make_gpu_node("decode-0", checksum=checksum)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    others = tuple(block_id for block_id in range(16) if block_id not in TARGET_BLOCKS)
    before = receiver.content(others)
    transfer = source.transfer(SOURCE_BLOCKS)
    source.send(receiver, transfer)
    assert source.events.next("on_sent") == (transfer,)
    assert receiver.events.next("on_arrived") == (1, 0, 5, transfer.checksums if checksum else ())
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
    assert receiver.content(others) == before
    (status,) = source.links.status()
    assert (status.transport, status.note) == ("nccl", "")


def test_a_run_in_one_piece_is_not_packed(world, gpu_pair):
    source, receiver = gpu_pair
    world.num_packs = 0
    source.send(receiver, source.transfer((3, 4, 5), first_block=1))
    source.events.next("on_sent")
    assert receiver.content((1, 2, 3)) == source.content((3, 4, 5))
    assert (world.num_packs, world.delivered) == (0, [3 * RECORD_BYTES])


def test_scattered_blocks_are_packed_by_one_kernel_at_each_end(world, gpu_pair):
    source, receiver = gpu_pair
    world.num_packs = 0
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    assert (world.num_packs, world.delivered) == (2, [5 * RECORD_BYTES])


def test_many_messages_take_turns_in_two_halves_of_staging(world, make_gpu_node, monkeypatch):
    monkeypatch.setattr(nccl_messages, "STAGING_BYTES", 3 * RECORD_BYTES)
    monkeypatch.setattr(nccl_messages, "STRAIGHT_BYTES", 6 * RECORD_BYTES)
    source, receiver = (make_gpu_node(name, num_blocks=128) for name in ("prefill-0", "decode-0"))
    block_ids = (*range(0, 60, 2), *range(100, 107), *range(1, 60, 2))
    target_ids = (*range(120, 90, -1), *range(40, 47), *range(30))
    for reservation in range(1, 4):
        receiver.slots.open(reservation, source.holder, EPOCH, target_ids, first_block=0)
        source.send(receiver, source.transfer(block_ids, reservation=reservation))
        source.events.next("on_sent")
        assert receiver.content(target_ids) == source.content(block_ids)
        receiver.slots.close(reservation)
    assert world.delivered == [*[3 * RECORD_BYTES] * 10, 7 * RECORD_BYTES, *[3 * RECORD_BYTES] * 10] * 3


def test_both_ends_share_one_communicator_for_all_transfers(world, gpu_pair):
    source, receiver = gpu_pair
    for index in range(5):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[index : index + 1], first_block=index))
    for _ in range(5):
        source.events.next("on_sent")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
    assert world.num_communicators == 2


def test_each_direction_has_a_communicator_of_its_own(world, make_gpu_node):
    world.connects_at_first_use = True
    one, other = make_gpu_node("a"), make_gpu_node("b")
    for node, peer in ((one, other), (other, one)):
        peer.slots.open(1, node.holder, EPOCH, (8, 10, 9), first_block=0)
        node.send(peer, node.transfer((0, 2, 4)))
    for node, peer in ((one, other), (other, one)):
        told = sorted(node.events._queue.get(timeout=20)[0] for _ in range(2))
        assert told == ["on_arrived", "on_sent"]
        assert peer.content((8, 10, 9)) == node.content((0, 2, 4))
    assert world.num_communicators == 4


@pytest.mark.parametrize("bounded", ["source", "receiver"])
def test_the_least_recently_used_communicator_makes_room_and_is_made_again(world, make_gpu_node, bounded):
    names = [f"{'decode' if bounded == 'source' else 'prefill'}-{index}" for index in range(3)]
    hub = make_gpu_node("hub", max_communicators=2)
    nodes = [make_gpu_node(name) for name in names]
    for turn, index in enumerate((0, 1, 0, 2, 1)):
        source, receiver = (hub, nodes[index]) if bounded == "source" else (nodes[index], hub)
        receiver.slots.open(turn, source.holder, EPOCH, (turn,), first_block=0)
        source.send(receiver, source.transfer((8,), reservation=turn))
        source.events.next("on_sent")
        assert receiver.content((turn,)) == source.content((8,))
        assert hub.region.channels.num_channels <= 2
    # 0, 1; 0 again; 2 takes the place of 1; 1 that of 0: four pairs.
    assert world.num_communicators == 8
    assert all(link.num_failures == 0 for node in (hub, *nodes) for link in node.links.status())


def test_closing_both_ends_leaves_no_communicator(world, gpu_pair):
    source, receiver = gpu_pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    for node in gpu_pair:
        node.close()
        assert node.region.channels.num_channels == 0


@pytest.mark.parametrize("gpu_end", ["source", "receiver"])
def test_there_is_no_link_between_host_and_gpu_memory(make_node, make_gpu_node, gpu_end):
    gpu, host = make_gpu_node("gpu"), make_node("host")
    source, receiver = (gpu, host) if gpu_end == "source" else (host, gpu)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    reason = source.events.next("on_send_failed")[1]
    kinds = ("GPU", "host") if gpu_end == "source" else ("host", "GPU")
    assert "no nccl link: KV is in {} memory at the source, in {} memory here".format(*kinds) in reason


def test_nccl_between_host_memories_is_refused(make_node):
    source, receiver = make_node("prefill-0", transport="nccl"), make_node("decode-0")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "KV is in host memory at the source" in source.events.next("on_send_failed")[1]


def test_tcp_between_gpu_memories_is_refused(make_gpu_node):
    source, receiver = make_gpu_node("prefill-0", transport="tcp"), make_gpu_node("decode-0")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "no tcp link: KV is in GPU memory at both ends" in source.events.next("on_send_failed")[1]


def test_an_instance_whose_kv_its_transport_cannot_move_does_not_start():
    for transport in ("auto", "shm", "tcp"):
        check_transport(LinkConfig(transport=transport), on_device=False)
    for transport in ("auto", "nccl"):
        check_transport(LinkConfig(transport=transport), on_device=True)
    with pytest.raises(TransportUnavailable, match=r"spec\.links\.transport: is 'nccl'.*host memory"):
        check_transport(LinkConfig(transport="nccl"), on_device=False)
    with pytest.raises(TransportUnavailable, match=r"spec\.links\.transport: is 'shm'.*on a GPU"):
        check_transport(LinkConfig(transport="shm"), on_device=True)


@pytest.mark.parametrize(("num_devices", "said"), [(0, "no CUDA-capable device"), (1, "no CUDA device 1: there are 1")])
def test_a_machine_without_the_gpu_says_so(world, num_devices, said):
    with pytest.raises(NcclUnavailable, match=said):
        CupyDevice(1, FakeCupy(world, num_devices))


def test_a_machine_without_nccl_says_so(world):
    cupy = FakeCupy(world)
    cupy.cuda.nccl.available = False
    with pytest.raises(NcclUnavailable, match="no NCCL"):
        CupyDevice(0, cupy)


@pytest.mark.parametrize(
    ("part", "name", "found", "said"),
    [
        (
            "",
            "__version__",
            "13.6.0",
            r"cupy 13\.6\.0 is too old; 14\.2 or later is needed: pip install 'baton\[gpu\]'",
        ),
        ("nccl", "get_version", 22501, r"NCCL 2\.25\.1 is too old; 2\.26 or later is needed"),
        ("nccl", "get_version", 30001, r"NCCL 3\.0\.1 is loaded and cupy was built for 2\.25\.1; 2\.x is needed"),
        (
            "runtime",
            "runtimeGetVersion",
            13000,
            r"CUDA 13 and torch for CUDA 12\.8: install cupy-cuda12x and nvidia-nccl-cu12",
        ),
    ],
)
def test_versions_that_do_not_fit_are_refused_with_those_that_do(world, part, name, found, said):
    cupy = FakeCupy(world)
    place = getattr(cupy.cuda, part) if part else cupy
    setattr(place, name, (lambda: found) if part else found)
    with pytest.raises(NcclUnavailable, match=said):
        CupyDevice(0, cupy, cuda="12.8")


@pytest.mark.parametrize("error", [RuntimeError("CuPy failed to load libnvrtc.so.12\nand why"), OSError("no headers")])
def test_a_cupy_that_cannot_compile_is_refused_in_one_line(world, monkeypatch, error):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(FakeKernel, "__call__", fail)
    said = str(error).splitlines()[0]
    with pytest.raises(NcclUnavailable, match=rf"^cupy 14\.2\.0 cannot load its kernels: {said}; pip install"):
        CupyDevice(0, FakeCupy(world))


def test_a_machine_without_cupy_is_told_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(NcclUnavailable, match=r"by cupy 14\.2 or later, and there is none; pip install 'baton\[gpu\]'"):
        CupyDevice()


def test_a_block_outside_of_the_memory_has_no_pointer(gpu_pair):
    for block_id in (-1, 16):
        with pytest.raises(ValueError, match="is not one of 16"):
            partial(gpu_pair[0].region.pointer_of, block_id)()
