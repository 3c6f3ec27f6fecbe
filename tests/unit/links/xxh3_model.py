"""What the kernel of `cluster.links.xxh3_kernel` does, in its order of work, with an axis for the lanes of a warp."""

import numpy as np
from numpy.typing import NDArray

from cluster.links.xxh3_kernel import INITIAL_SUMS, KIB_PER_WARP, NUM_READING_WARPS, SECRET

LANES = np.arange(32)
WORDS = np.array(SECRET, np.uint64)
TILE = NUM_READING_WARPS * KIB_PER_WARP
MASK = (1 << 64) - 1


class Reads:
    """How often each 16 bytes of a record are loaded."""

    def __init__(self, record: NDArray[np.uint8]) -> None:
        self.data = record.view(np.uint64).reshape(-1, 2)
        self.counts = np.zeros(len(self.data), np.int64)

    def load(self, indices: NDArray[np.int64]) -> NDArray[np.uint64]:
        np.add.at(self.counts, indices, 1)
        return self.data[indices]


def xxh3_of(record: NDArray[np.uint8]) -> tuple[int, NDArray[np.int64]]:
    """The checksum, and how often each 16 bytes but those of the last stripe's own load were read."""
    reads, num_bytes = Reads(record), record.nbytes
    num_stripes, num_scrambled = (num_bytes - 1) // 64, (num_bytes - 1) // 1024
    sums = np.array(INITIAL_SUMS, np.uint64)
    with np.errstate(over="ignore"):
        for tile in range(num_scrambled // TILE + 1):
            rows = [sums_of_kib(reads, tile * TILE + row, num_stripes) for row in range(TILE)]
            count = min(TILE, num_scrambled - tile * TILE)
            for row in rows[:count]:
                sums = sums + row
                sums = (sums ^ (sums >> np.uint64(47)) ^ WORDS[16:]) * np.uint64(0x9E3779B1)
            if count < TILE:
                sums = sums + rows[count]
        last = record[-64:].view(np.uint64)
        sums = sums + last[np.arange(8) ^ 1] + product(last ^ secret_at(15, 8))
    return merge(sums ^ secret_at(1, 24), num_bytes), reads.counts


def sums_of_kib(reads: Reads, kib: int, num_stripes: int) -> NDArray[np.uint64]:
    """[8]: of a warp, after its lanes have added up what they have."""
    even, odd = np.zeros(32, np.uint64), np.zeros(32, np.uint64)
    for half in range(2):
        there = LANES[kib * 16 + half * 8 + LANES // 4 < num_stripes]
        first, second = reads.load(kib * 64 + half * 32 + there).T
        word = half * 8 + there // 4 + 2 * (there % 4)
        even[there] += second + product(first ^ WORDS[word])
        odd[there] += first + product(second ^ WORDS[word + 1])
    for distance in (4, 8, 16):
        even, odd = even + even[LANES ^ distance], odd + odd[LANES ^ distance]
    return np.stack([even[:4], odd[:4]], axis=1).ravel()


def product(words: NDArray[np.uint64]) -> NDArray[np.uint64]:
    return (words & np.uint64(0xFFFFFFFF)) * (words >> np.uint64(32))


def secret_at(word: int, shift: int) -> NDArray[np.uint64]:
    return WORDS[word : word + 8] >> np.uint64(shift) | WORDS[word + 1 : word + 9] << np.uint64(64 - shift)


def merge(parts: NDArray[np.uint64], num_bytes: int) -> int:
    products = [int(even) * int(odd) for even, odd in parts.reshape(4, 2)]
    folded = sum((product & MASK) ^ (product >> 64) for product in products)
    folded = (folded + num_bytes * 0x9E3779B185EBCA87) & MASK
    folded = ((folded ^ folded >> 37) * 0x165667919E3779F9) & MASK
    return folded ^ folded >> 32
