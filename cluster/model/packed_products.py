"""Products in fp32 on a CPU with weights that are packed once, beside them as they were: twice the memory.

By Numba's kernel (`numba_kernels.multiply`), or where that is not had by oneDNN, which torch brings along.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TYPICAL_ROWS = 32  # for oneDNN
MANY_ROWS = 128
"""From so many on, torch's product with weights as they lie takes no longer than the kernel's."""


class NumbaProduct:
    """A `Product` by the kernel, in as many threads as Numba is told to use (`NumbaAttention.plan`).

    `packed`: [panels, in_features, PANEL]. Raises ImportError without Numba.
    """

    def __init__(self, weight: Tensor) -> None:
        from cluster.model.numba_kernels import multiply
        from cluster.model.numba_tile import PANEL

        self._multiply = multiply
        out_features, in_features = weight.shape
        if num_missing := -out_features % PANEL:
            weight = F.pad(weight, (0, 0, 0, num_missing))
        panels = weight.reshape((out_features + num_missing) // PANEL, PANEL, in_features)
        self.packed = panels.transpose(1, 2).contiguous()

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of rows [num_rows, in_features]. Raises ValueError, or torch's RuntimeError, for others."""
        if len(rows) >= MANY_ROWS:
            return F.linear(rows, weight, bias)
        if rows.dtype != torch.float32 or rows.shape[1:] != weight.shape[1:]:
            raise ValueError(f"{rows.dtype} rows of {tuple(rows.shape)} by a weight of {tuple(weight.shape)} in fp32")
        product = rows.new_empty(len(rows), len(weight))
        self._multiply(rows.contiguous().numpy(), self.packed.data_ptr(), False, product.numpy())
        return product if bias is None else product.add_(bias)


def try_kernel() -> None:
    """By whole numbers, whose products are exact. Raises RuntimeError where they are wrong: what was read from disk may
    have been compiled from something else.
    """
    weight, rows = (torch.arange(size * 300).remainder_(7).view(size, 300).float() for size in (70, 13))
    if not torch.equal(NumbaProduct(weight)(rows, weight, None), F.linear(rows, weight)):
        raise RuntimeError("products by Numba's kernel are wrong")


class OneDnnProduct:
    """A `Product` by oneDNN, packed for `TYPICAL_ROWS`."""

    def __init__(self, weight: Tensor) -> None:
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(rows) == 1:  # that only reads the weights, fastest as they lie
            return F.linear(rows, weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")
        return product


def has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]
