"""Memory in pages of 2 MiB, where the system lends them: with fewer pages to look up, weights stream in faster."""

import mmap
from contextlib import suppress

import torch
from torch import Tensor


def zeros_in_huge_pages(size: int) -> Tensor:
    """[size], fp32, at least one."""
    memory = mmap.mmap(-1, size * torch.float32.itemsize, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):  # a kernel without them
            memory.madvise(mmap.MADV_HUGEPAGE)
    return torch.frombuffer(memory, dtype=torch.float32)
