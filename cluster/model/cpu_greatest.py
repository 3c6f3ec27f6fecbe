"""Where rows in a CPU's memory are greatest."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

NUM_PARTS = 16
"""In which threads look at a row: those who have computed it have most of their own part in their caches."""

kernel: Callable[..., None] | None = None
"""Numba's, from when steps are computed by its kernels (`NumbaSteps`)."""


def greatest_on_cpu(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Of fp32 rows [num_rows, size] the greatest, and where it is first; a NaN if there is one.

    Without the kernel by NumPy, whose argmax is vectorised, and ten times as fast as torch's.
    """
    numbers, each = rows.contiguous().numpy(), np.arange(len(rows))
    if kernel is None:
        token_ids = numbers.argmax(axis=-1)
        return torch.from_numpy(numbers[each, token_ids]), torch.from_numpy(token_ids)
    values, columns = np.empty((len(rows), NUM_PARTS), np.float32), np.empty((len(rows), NUM_PARTS), np.int64)
    kernel(numbers, values, columns)
    best = values.argmax(axis=-1)
    return torch.from_numpy(values[each, best]), torch.from_numpy(columns[each, best])
