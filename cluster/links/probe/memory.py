"""What a probe moves: as many bytes as it is asked for, in pieces of the size of the records that KV moves in."""

import threading

import numpy as np
from numpy.typing import NDArray

from cluster.links.record_shape import Record

SCRATCH_BYTES = 16 << 20


def pieces(memory: NDArray[np.uint8], record_bytes: int, num_bytes: int) -> list[Record]:
    """Views into `memory` [at least record_bytes], one behind the other, over and over; the last may be shorter."""
    per_round = len(memory) // record_bytes
    out = []
    for index in range(-(-num_bytes // record_bytes)):
        start = index % per_round * record_bytes
        out.append(memory[start : start + min(record_bytes, num_bytes - index * record_bytes)])
    return out


class Scratch:
    """Where probes of all links of a listener land. What is in it means nothing, so they may even share it."""

    def __init__(self, record_bytes: int) -> None:
        self._record_bytes = record_bytes
        self._lock = threading.Lock()
        self._memory: NDArray[np.uint8] | None = None

    def pieces(self, num_bytes: int, piece_bytes: int) -> list[Record]:
        """`piece_bytes`: a record's, or less."""
        with self._lock:
            if self._memory is None:
                self._memory = np.ones(max(1, SCRATCH_BYTES // self._record_bytes) * self._record_bytes, np.uint8)
        return pieces(self._memory, piece_bytes, num_bytes)
