"""A matrix product with fixed weights, in the layouts that are fast on the device at hand.

On a CPU in fp32 (docs/measurements/engine-cpu.md): with several rows, weights packed by oneDNN save a fifth to a half
of the time of `F.linear`; with one row, which only reads memory, the plain product with the transposed weights saves a
third, and a kernel of Numba's a third of what is left (`numba_token.py`). So two layouts are kept, at twice the memory;
everywhere else `product` is called.
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

TYPICAL_ROWS = 32


class Linear:
    """y = x Wᵀ + b for x [num_rows, in_features] and W [out_features, in_features]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, single_row_copy: bool = True) -> None:
        self.in_features = weight.shape[1]
        self.bias = bias
        self.product: Callable[[Tensor, Tensor, Tensor | None], Tensor] = F.linear
        self.packed = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.enabled
        self.weight = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS) if self.packed else weight
        self.row_product: Callable[[Tensor], Tensor] | None = None
        if self.packed and single_row_copy:
            self.row_product = partial(_product_of_row, weight.t().contiguous(), bias)

    def dense(self) -> Tensor:
        """[out_features, in_features], as it was given; a copy where products read it in another order."""
        return self.weight.to_dense() if self.packed else self.weight

    def __call__(self, rows: Tensor) -> Tensor:
        if not self.packed:
            return self.product(rows, self.weight, self.bias)
        if self.row_product is not None and rows.shape[0] == 1:
            return self.row_product(rows)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self.weight, self.bias, "none", [], "")
        return product


def _product_of_row(transposed: Tensor, bias: Tensor | None, row: Tensor) -> Tensor:
    return torch.mm(row, transposed) if bias is None else torch.addmm(bias, row, transposed)
