"""The checksum of every block in this instance's memory that is full, by block id."""

from collections.abc import Iterable

from cluster.links.device_region import Region


class KvChecksums:
    """Implements `BlockChecksums`. With `enabled` False nothing is computed and every checksum is 0, unread."""

    def __init__(self, region: Region, *, enabled: bool = True) -> None:
        self._region = region
        self._enabled = enabled
        self._checksums = [0] * (region.num_bytes // region.record_bytes)

    def seal(self, block_ids: Iterable[int]) -> None:
        if self._enabled:
            block_ids = tuple(block_ids)
            self.put(block_ids, self._region.checksums(block_ids))

    def get(self, block_ids: Iterable[int]) -> tuple[int, ...]:
        return tuple(self._checksums[block_id] for block_id in block_ids)

    def put(self, block_ids: Iterable[int], checksums: Iterable[int]) -> None:
        for block_id, checksum in zip(block_ids, checksums, strict=False):
            self._checksums[block_id] = checksum
