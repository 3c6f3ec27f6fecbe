"""Memory in pages of 2 MiB, where the system lends them: with fewer pages to look up, weights stream in faster."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor

FLOAT_BYTES = 4


class HugePages:
    """Room for so many fp32 numbers, taken a part at a time."""

    def __init__(self, size: int) -> None:
        memory = mmap.mmap(-1, max(1, size) * FLOAT_BYTES, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        if hasattr(mmap, "MADV_HUGEPAGE"):
            with suppress(OSError):  # a kernel without them
                memory.madvise(mmap.MADV_HUGEPAGE)
        self._left = torch.frombuffer(memory, dtype=torch.float32)

    def take(self, size: int) -> Tensor:
        """[size], of zeros."""
        taken, self._left = self._left[:size], self._left[size:]
        return taken
