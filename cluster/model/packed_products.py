"""Products in fp32 on a CPU with weights that are packed once, beside them as they were: twice the memory.

By Numba's kernel (`numba_kernels.multiply`), or where that is not had by oneDNN, which torch brings along.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

TYPICAL_ROWS = 32  # for oneDNN
MANY_ROWS = 256
"""From so many on, torch's product with weights as they lie takes no longer than the kernel's."""


class NumbaProduct:
    """Raises ImportError without Numba."""

    def __init__(self, weight: Tensor) -> None:
        from cluster.model.numba_kernels import multiply
        from cluster.model.numba_tile import PANEL

        self._multiply = multiply
        out_features, in_features = weight.shape
        padded = F.pad(weight, (0, 0, 0, -out_features % PANEL))
        self.packed = padded.reshape(-1, PANEL, in_features).transpose(1, 2).contiguous()

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Raises ValueError, or torch's RuntimeError, for rows that do not fit."""
        if len(rows) >= MANY_ROWS:
            return F.linear(rows, weight, bias)
        if rows.dtype != torch.float32 or rows.shape[1] != weight.shape[1]:
            raise ValueError(f"{rows.dtype} rows of {rows.shape[1]} by a weight of {tuple(weight.shape)} in fp32")
        product = rows.new_empty(len(rows), len(weight))
        self._multiply(rows.contiguous().numpy(), self.packed.data_ptr(), False, product.numpy())
        return product if bias is None else product.add_(bias)


class OneDnnProduct:
    def __init__(self, weight: Tensor) -> None:
        self._packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(rows) == 1:  # that only reads the weights, fastest as they lie
            return F.linear(rows, weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, self._packed, bias, "none", [], "")
        return product


def has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]
