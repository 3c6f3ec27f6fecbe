"""Checksums of KV on a GPU: the CPU's numbers, each byte read once, and nothing where they are off."""

import os
import shutil

import numpy as np
import pytest

from cluster.instance.checksums import KvChecksums
from cluster.links.config import LinkConfig
from cluster.links.kv_region import checksum
from cluster.links.nccl import CupyDevice

from .emulated_kernel import EmulatedKernel
from .factories import EPOCH, SOURCE_BLOCKS, TARGET_BLOCKS
from .fake_nccl import FakeCupy, make_world
from .nccl_nodes import GpuNode
from .xxh3_model import xxh3_of

pytestmark = pytest.mark.unit

KIB = 1024
SIZES = [
    256,
    272,
    KIB,
    KIB + 16,
    KIB + 64,
    4 * KIB,
    32 * KIB,
    32 * KIB + 16,
    33 * KIB,
    64 * KIB + 48,
    65 * KIB,
    100_000,
]


@pytest.mark.parametrize("num_bytes", SIZES)
def test_the_kernels_order_of_work_gives_the_cpus_checksum_and_reads_each_byte_once(num_bytes):
    record = np.random.default_rng(num_bytes).integers(0, 256, num_bytes, np.uint8)
    found, counts = xxh3_of(record)
    assert found == checksum(record)
    whole_stripes = (num_bytes - 1) // 64 * 4  # the last stripe, which ends with the record, has a load of its own
    assert (counts[:whole_stripes] == 1).all()
    assert not counts[whole_stripes:].any()


@pytest.mark.skipif("BATON_KERNEL_SHAPES" not in os.environ, reason="make test-kernels runs it: it takes long")
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no g++ to compile the kernel for a CPU")
def test_the_kernel_itself_run_by_threads_of_a_cpu_gives_the_cpus_checksum(tmp_path):
    kernel = EmulatedKernel(tmp_path)
    for num_bytes in SIZES:
        room = np.random.default_rng(num_bytes).integers(0, 256, 3 * num_bytes + 16, np.uint8)
        start = -room.ctypes.data % 16
        records = room[start : start + 3 * num_bytes].reshape(3, num_bytes)
        assert kernel(records, [2, 0]) == [checksum(records[2]), checksum(records[0])], num_bytes


@pytest.mark.parametrize(("record_bytes", "num_launches"), [(4096, 1), (128, 0), (4100, 0)])
def test_a_launch_checks_all_blocks_and_what_the_kernel_cannot_read_the_cpu_does(record_bytes, num_launches):
    with make_world() as world:
        pointer = world.allocate(8 * record_bytes)
        records = world.view(pointer, 8 * record_bytes).reshape(8, record_bytes)
        records[:] = np.random.default_rng(0).integers(0, 256, records.shape, np.uint8)
        checksums = CupyDevice(0, FakeCupy(world)).checksummer(pointer, record_bytes)
        before = world.num_checksum_launches
        assert checksums((5, 0, 7)) == tuple(checksum(records[block_id]) for block_id in (5, 0, 7))
        assert checksums(()) == ()
        assert world.num_checksum_launches - before == num_launches


@pytest.mark.parametrize("enabled", [True, False])
def test_with_checksums_off_nothing_is_computed_at_either_end(enabled):
    with make_world() as world:
        source, receiver = (GpuNode(world, name, LinkConfig(checksum=enabled)) for name in ("p", "d"))
        try:
            receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
            before, sealed = world.num_checksum_launches, KvChecksums(source.region, enabled=enabled)
            sealed.seal(SOURCE_BLOCKS)
            source.send(receiver, source.transfer(SOURCE_BLOCKS, checksums=sealed.get(SOURCE_BLOCKS)))
            source.events.next("on_sent")
            assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
            assert world.num_checksum_launches - before == (2 if enabled else 0)
        finally:
            source.close()
            receiver.close()
