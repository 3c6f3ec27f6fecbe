"""Links over NCCL on real GPUs: between two processes on two of them, or on one where NCCL is new enough."""

import multiprocessing
import os
import queue
import random
import signal
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import numpy as np
import pytest

from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.kv_region import checksum
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_channel import DEATH_GRACE_S
from cluster.links.nccl_channels import NcclChannels
from cluster.links.nccl_device import NcclUnavailable
from cluster.links.part_checksums import PartChecksums
from cluster.links.probe.plan import ProbeLimits
from cluster.links.probe.session import ProbeSession, ProbeTarget
from cluster.links.record_shape import HeadRange, RecordShape, gather
from cluster.messages import Holder, Probed
from cluster.topology.fit import fit_link

from .nccl_node import ENVIRONMENT, NUM_BLOCKS, GpuNode, serve

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(300)]

TWO_RANKS_ON_ONE_GPU = 23000  # NCCL 2.30
SETUP_S = 60.0  # a first communicator loads NCCL's kernels
LONGER_S = 20.0  # than a set-up takes
RECORD_BYTES = 64 << 10


@pytest.fixture(scope="module")
def device() -> CupyDevice:
    os.environ.update(ENVIRONMENT)
    try:
        return CupyDevice(0)
    except NcclUnavailable as error:
        pytest.skip(f"GPU tests need a GPU: {error}")


@pytest.fixture(scope="module")
def peer_device(device: CupyDevice) -> int:
    """Where the other rank may be."""
    import cupy

    if cupy.cuda.runtime.getDeviceCount() > 1:
        return 1
    if device.nccl_version() < TWO_RANKS_ON_ONE_GPU:
        pytest.skip(f"one GPU, and NCCL {device.nccl_version()} does not take two ranks on one: 2.30 does")
    return 0


class Receiver:
    """A node in another process."""

    def __init__(self, name: str, device_id: int, record_bytes: int, options: dict[str, Any]) -> None:
        context = multiprocessing.get_context("spawn")
        self.holder = Holder(name, 1)
        self.control: Connection
        self.control, theirs = context.Pipe()
        arguments = (theirs, name, device_id, record_bytes, options)
        self.process: BaseProcess = context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        assert self.control.poll(SETUP_S), "the receiver does not start"
        self.address = self.control.recv()

    def call(self, *command: Any) -> Any:
        self.control.send(command)
        assert self.control.poll(SETUP_S), command
        return self.control.recv()

    def wait_for_arrival(self) -> None:
        while (event := self.call("event")) is not None:
            if event[0] == "on_arrived":
                return
        raise AssertionError("nothing arrived")

    def close(self) -> None:
        if self.process.is_alive():
            os.kill(self.process.pid, signal.SIGCONT)
            self.control.send(("end",))
            self.process.join(SETUP_S)
            self.process.kill()
        self.process.join()


@pytest.fixture
def make_receiver(peer_device: int) -> Iterator[Callable[..., Receiver]]:
    receivers: list[Receiver] = []

    def make(name: str, *, record_bytes: int = RECORD_BYTES, **options: Any) -> Receiver:
        receivers.append(Receiver(name, peer_device, record_bytes, {"transfer_timeout_s": SETUP_S, **options}))
        return receivers[-1]

    yield make
    for receiver in receivers:
        receiver.close()


@pytest.fixture
def make_source(device: CupyDevice) -> Iterator[Callable[..., GpuNode]]:
    sources: list[GpuNode] = []

    def make(
        *,
        record_bytes: int = RECORD_BYTES,
        max_communicators: int = 8,
        shape: RecordShape | None = None,
        **options: Any,
    ) -> GpuNode:
        config = LinkConfig(**{"transfer_timeout_s": SETUP_S, **options})
        sources.append(GpuNode("prefill-0", 0, record_bytes, config, max_communicators, shape=shape))
        return sources[-1]

    yield make
    for source in sources:
        source.close()


@pytest.fixture
def aborts_alone(make_source: Callable[..., GpuNode], make_receiver: Callable[..., Receiver]) -> None:
    """Skips where NCCL's abort returns only when the peer has aborted too (docs/links-nccl.md)."""
    source, receiver = make_source(), make_receiver("decode-9")
    move(source, receiver, 1, (0, 2), (0, 2))
    (channel,) = source.region.channels._channels
    start_s = time.perf_counter()
    channel.close()
    if not channel.death.wait(LONGER_S):
        pytest.skip("an abort waits for the peer's: NCCL has no cuMem host memory here")
    print(f"an abort takes {time.perf_counter() - start_s:.3f} s, of the {DEATH_GRACE_S} s that it is given")


def outcome(source: GpuNode) -> tuple[str, str]:
    """(event, reason) of the next transfer that ends."""
    name, arguments = source.events._queue.get(timeout=2 * SETUP_S)
    return name, "".join(arguments[1:])


def move(source: GpuNode, receiver: Receiver, reservation: int, block_ids: Any, target_ids: Any) -> None:
    receiver.call("open", reservation, tuple(target_ids))
    source.send(receiver.address, receiver.holder, tuple(block_ids), reservation)
    assert outcome(source) == ("on_sent", "")
    receiver.wait_for_arrival()
    assert receiver.call("content", tuple(target_ids)) == source.content(tuple(block_ids))


@pytest.mark.parametrize("record_bytes", [64 << 10, 1 << 20, 4000, 4001])
def test_records_are_packed_and_unpacked_as_they_are(device, record_bytes):
    import cupy

    device.bind()
    count = 9
    records = os.urandom(16 * record_bytes)
    memory, packed = device.allocate(16 * record_bytes), device.allocate(count * record_bytes)
    runtime, stream = cupy.cuda.runtime, device.make_stream()
    host = np.frombuffer(records, np.uint8)
    runtime.memcpy(memory.pointer, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice)
    runtime.deviceSynchronize()
    source_ids, target_ids = random.sample(range(16), count), list(range(15, 15 - count, -1))
    ids = device.upload(source_ids, stream)
    device.pack(memory.pointer, ids.pointer, count, record_bytes, packed.pointer, stream)
    ids_of_target = device.upload(target_ids, stream)
    device.unpack(memory.pointer, ids_of_target.pointer, count, record_bytes, packed.pointer, stream)
    device.synchronize(device.record(stream))
    rows = host.reshape(16, record_bytes)
    expected = tuple(checksum(rows[block_id]) for block_id in source_ids)
    assert device.checksummer(memory.pointer, record_bytes)(target_ids) == expected


@pytest.mark.parametrize("head_bytes", [256, 128, 36])
def test_heads_are_gathered_and_scattered_as_on_a_cpu(device, head_bytes):
    import cupy

    device.bind()
    shape = RecordShape(num_rows=500, num_heads=8, head_bytes=head_bytes)
    heads, ids = HeadRange(start=2, count=3), random.sample(range(16), 9)
    rows, runtime, stream = shape.strided(heads), cupy.cuda.runtime, device.make_stream()
    host = np.frombuffer(os.urandom(16 * shape.record_bytes), np.uint8).reshape(16, -1)
    memory, packed = device.allocate(host.nbytes), device.allocate(9 * rows.num_bytes)
    runtime.memcpy(memory.pointer, host.ctypes.data, host.nbytes, runtime.memcpyHostToDevice)
    runtime.deviceSynchronize()
    right = tuple(checksum(record) for record in gather(shape, [host[block_id] for block_id in ids], heads))
    assert PartChecksums(device, memory.pointer)(ids, rows) == right
    uploaded, others = device.upload(ids, stream), device.upload(range(9), stream)
    device.pack_heads(memory.pointer, uploaded.pointer, 9, rows, packed.pointer, stream)
    device.unpack_heads(memory.pointer, others.pointer, 9, rows, packed.pointer, stream)
    device.synchronize(device.record(stream))
    expected, found = host.copy(), np.empty_like(host)
    for block_id, source in enumerate(ids):
        shape.rows(expected[block_id], heads)[:] = shape.rows(host[source], heads)
    runtime.memcpy(found.ctypes.data, memory.pointer, found.nbytes, runtime.memcpyDeviceToHost)
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("num_ranks", [2, 4])
def test_every_rank_gets_its_heads(make_source, make_receiver, num_ranks):
    """From one GPU to ranks in processes of their own, which are on another one, or on the same."""
    whole = RecordShape(num_rows=200, num_heads=4, head_bytes=128)
    part = RecordShape(num_rows=200, num_heads=4 // num_ranks, head_bytes=128)
    source = make_source(record_bytes=whole.record_bytes, shape=whole)
    ranks = [
        make_receiver(
            "decode-0",
            record_bytes=part.record_bytes,
            ranks={"shape": part, "rank": rank, "num_ranks": num_ranks},
        )
        for rank in range(num_ranks)
    ]
    block_ids, target_ids = (3, 4, 5, 90, 17), (7, 8, 1, 2, 400)
    for each in ranks:
        each.call("open", 1, target_ids)
    source.send(",".join(each.address for each in ranks), ranks[0].holder, block_ids, 1)
    assert outcome(source) == ("on_sent", "")
    sent = np.frombuffer(source.content(block_ids), np.uint8).reshape(len(block_ids), 200, 4, 128)
    for each, right in zip(ranks, np.split(sent, num_ranks, axis=2), strict=True):
        each.wait_for_arrival()
        assert each.call("content", target_ids) == right.tobytes()


def test_a_message_to_oneself_passes_through_a_communicator(device):
    """What one process can do on one GPU with any NCCL: both calls, their arguments, an event, an abort."""
    import cupy

    device.bind()
    nccl, num_bytes = cupy.cuda.nccl, 1 << 20
    source, target, stream = cupy.arange(num_bytes, dtype="u1"), cupy.zeros(num_bytes, "u1"), device.make_stream()
    cupy.cuda.runtime.deviceSynchronize()
    communicator = nccl.NcclCommunicator(1, device.make_unique_id(), 0)
    nccl.groupStart()
    communicator.send(source.data.ptr, num_bytes, nccl.NCCL_UINT8, 0, stream.ptr)
    communicator.recv(target.data.ptr, num_bytes, nccl.NCCL_UINT8, 0, stream.ptr)
    nccl.groupEnd()
    device.synchronize(device.record(stream))
    communicator.check_async_error()
    communicator.abort()
    assert bool((source == target).all())


def test_a_set_up_without_its_peer_is_given_up(device):
    channels = NcclChannels(device, 1)
    deadline = Deadline.after(LONGER_S, "peer")
    channel = channels.open(deadline)
    unique_id = channel.make_unique_id(lambda: None)
    with pytest.raises(LinkError, match="no peer within"):
        channel.set_up(unique_id, 0, deadline.remaining_s)


@pytest.mark.parametrize("record_bytes", [4096, 64 << 10, 1 << 20])
@pytest.mark.parametrize("layout", ["one run", "scattered", "mixed"])
def test_blocks_arrive_as_they_were(make_source, make_receiver, record_bytes, layout):
    source, receiver = make_source(record_bytes=record_bytes), make_receiver("decode-0", record_bytes=record_bytes)
    drawn = random.Random(0)
    for reservation, count in enumerate((1, 7, 64, NUM_BLOCKS // 2), 1):
        if layout == "scattered":
            block_ids, target_ids = (drawn.sample(range(NUM_BLOCKS), count) for _ in "st")
        else:
            start = drawn.randrange(NUM_BLOCKS - count)
            block_ids, target_ids = range(start, start + count), range(count)
            if layout == "mixed":
                block_ids = (*block_ids[count // 2 :], *block_ids[: count // 2])
        move(source, receiver, reservation, block_ids, target_ids)
    assert [(link.transport, link.num_failures) for link in source.links.status()] == [("nccl", 0)]


@pytest.mark.usefixtures("aborts_alone")
def test_the_least_recently_used_communicator_makes_room(make_source, make_receiver):
    source = make_source(max_communicators=1)
    receivers = [make_receiver(f"decode-{index}") for index in range(2)]
    for reservation, receiver in enumerate([*receivers, *receivers], 1):
        move(source, receiver, reservation, (9, 3, 5), (reservation * 8, reservation * 8 + 2, 1 + reservation * 8))
        assert source.region.channels.num_channels == 1


def test_a_killed_receiver_fails_its_own_link_at_once_and_no_other(make_source, make_receiver):
    source, doomed, other = make_source(), make_receiver("decode-0"), make_receiver("decode-1")
    for receiver in (doomed, other):
        move(source, receiver, 1, (0, 2), (0, 2))
    doomed.call("open", 2, (4, 6))
    os.kill(doomed.process.pid, signal.SIGSTOP)
    source.send(doomed.address, doomed.holder, (4, 6), 2)
    doomed.process.kill()
    assert outcome(source)[0] == "on_send_failed"
    move(source, other, 2, (4, 6), (4, 6))


def test_a_send_that_nobody_receives_is_aborted_at_the_deadline(make_source, make_receiver):
    """Here the source's kernel runs, and has to be ended."""
    source = make_source(transfer_timeout_s=LONGER_S)
    receiver = make_receiver("decode-0", armed=f"links.receive.message=stall:{3 * LONGER_S}")
    receiver.call("open", 1, (4, 6))
    source.send(receiver.address, receiver.holder, (4, 6), 1)
    event, reason = outcome(source)
    assert event == "on_send_failed"
    assert f"within {LONGER_S:g} s" in reason
    assert source.region.channels.num_channels == 0


@pytest.mark.usefixtures("aborts_alone")
def test_a_frozen_receiver_fails_with_the_deadline_and_serves_again_when_it_thaws(make_source, make_receiver):
    source, receiver = make_source(transfer_timeout_s=LONGER_S), make_receiver("decode-0")
    move(source, receiver, 1, (0, 2), (0, 2))
    receiver.call("open", 2, (4, 6))
    os.kill(receiver.process.pid, signal.SIGSTOP)
    source.send(receiver.address, receiver.holder, (4, 6), 2)
    event, reason = outcome(source)
    assert event == "on_send_failed"
    assert f"within {LONGER_S:g} s" in reason
    os.kill(receiver.process.pid, signal.SIGCONT)
    move(source, receiver, 3, (8, 10), (8, 10))


def test_a_probe_measures_the_link_and_comes_to_no_block(make_source, make_receiver):
    source, receiver = make_source(), make_receiver("decode-0")
    before = receiver.call("content", tuple(range(NUM_BLOCKS)))
    answers: queue.SimpleQueue[Probed] = queue.SimpleQueue()
    target = ProbeTarget(holder=receiver.holder, link_address=receiver.address)
    ProbeSession(source.links, target, ProbeLimits(), answers.put).start()
    probed = answers.get(timeout=2 * SETUP_S)
    assert (probed.transport, probed.error) == ("nccl", "")
    model = fit_link([(sample.num_bytes, sample.seconds) for sample in probed.samples])
    assert model is not None
    print(f"{model.alpha_s * 1e6:.0f} us, {model.beta_bytes_per_s / 1e9:.1f} GB/s, with checksums")
    assert receiver.call("content", tuple(range(NUM_BLOCKS))) == before
    move(source, receiver, 1, range(8), range(8, 16))
