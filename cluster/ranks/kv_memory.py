"""KV memory of a rank as links see it."""

from cluster.links.kv_region import KvRegion
from cluster.links.record_shape import RecordShape
from cluster.links.shared_region import SharedRegion
from cluster.model.kv_cache import KVCache


def kv_region(memory: SharedRegion, kv_cache: KVCache) -> KvRegion:
    """`kv_cache` lies in `memory`."""
    num_heads, head_dim = kv_cache.tensor.shape[-2:]
    shape = RecordShape(
        num_rows=2 * kv_cache.num_layers * kv_cache.block_size,
        num_heads=num_heads,
        head_bytes=head_dim * kv_cache.tensor.itemsize,
    )
    return KvRegion(memory.buffer, kv_cache.record_bytes, memory.path, shape)
