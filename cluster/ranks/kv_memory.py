"""KV memory of a rank as links see it."""

from cluster.links.device_region import DeviceRegion
from cluster.links.kv_region import KvRegion
from cluster.links.nccl import CupyDevice
from cluster.links.record_shape import RecordShape
from cluster.links.shared_region import SharedRegion
from cluster.model.kv_cache import KVCache


def kv_region(memory: SharedRegion, kv_cache: KVCache) -> KvRegion:
    """`kv_cache` lies in `memory`."""
    return KvRegion(memory.buffer, kv_cache.record_bytes, memory.path, _shape(kv_cache))


def device_region(device: CupyDevice, kv_cache: KVCache) -> DeviceRegion:
    """`kv_cache` lies on `device`."""
    pointer, record_bytes = kv_cache.tensor.data_ptr(), kv_cache.record_bytes
    return DeviceRegion(
        device,
        pointer=pointer,
        record_bytes=record_bytes,
        num_records=kv_cache.num_blocks,
        checksums=device.checksummer(pointer, record_bytes),
        shape=_shape(kv_cache),
    )


def _shape(kv_cache: KVCache) -> RecordShape:
    num_heads, head_dim = kv_cache.tensor.shape[-2:]
    return RecordShape(
        num_rows=2 * kv_cache.num_layers * kv_cache.block_size,
        num_heads=num_heads,
        head_bytes=head_dim * kv_cache.tensor.itemsize,
        dtype=str(kv_cache.tensor.dtype).removeprefix("torch."),
    )
