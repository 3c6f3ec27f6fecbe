"""KV memory on a GPU as links see it: records of one size, one per block, that only NCCL moves."""

from collections.abc import Callable, Iterable, Sequence

from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.nccl_channels import MAX_COMMUNICATORS, NcclChannels
from cluster.links.nccl_device import NcclDevice
from cluster.links.part_checksums import PartChecksums
from cluster.links.record_shape import RecordRows, RecordShape


class DeviceRegion:
    """`pointer`: [num_records * record_bytes] bytes on `device`. Blocks that are offered are complete: whoever wrote
    them has waited for that. `checksums` is called from links' threads, bound to the device, for blocks of either side.

    `shape`: where heads lie in a record, for those who need some of them only.
    """

    path = ""  # nobody maps it

    def __init__(
        self,
        device: NcclDevice,
        *,
        pointer: int,
        record_bytes: int,
        num_records: int,
        checksums: Callable[[Sequence[int]], tuple[int, ...]],
        max_communicators: int = MAX_COMMUNICATORS,
        shape: RecordShape | None = None,
    ) -> None:
        self.pointer = pointer
        self.record_bytes = record_bytes
        self.num_records = num_records
        self.num_bytes = num_records * record_bytes
        self.channels = NcclChannels(device, max_communicators)
        self.shape = shape
        self._checksums = checksums
        self._part_checksums = PartChecksums(device, pointer)

    def checksums(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        return self._checksums(tuple(block_ids))

    def part_checksums(self, block_ids: Iterable[int], rows: RecordRows) -> tuple[int, ...]:
        """Of these rows of each, as they are when gathered."""
        return self._part_checksums(tuple(block_ids), rows)

    def pointer_of(self, block_id: int) -> int:
        if not 0 <= block_id < self.num_records:
            raise ValueError(f"block {block_id} is not one of {self.num_records}")
        return self.pointer + block_id * self.record_bytes


Region = KvRegion | DeviceRegion


def dtype_of(region: Region) -> str:
    """Of its numbers; empty: not told."""
    return "" if region.shape is None else region.shape.dtype


class TransportUnavailable(ValueError):
    """The deployment asks for a transport that cannot move this instance's KV memory."""


def check_transport(config: LinkConfig, *, on_device: bool) -> None:
    """Raises TransportUnavailable. `on_device`: KV memory is a GPU's."""
    if config.transport == "nccl" and not on_device:
        raise TransportUnavailable(
            "spec.links.transport: is 'nccl', which moves KV between GPUs, but this instance keeps its KV in host "
            "memory; use 'auto', 'shm' or 'tcp'"
        )
    if config.transport in ("shm", "tcp") and on_device:
        raise TransportUnavailable(
            f"spec.links.transport: is {config.transport!r}, which moves KV in host memory, but this instance keeps "
            "its KV on a GPU; use 'auto' or 'nccl'"
        )
