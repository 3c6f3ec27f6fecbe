"""Products in fp32 on a CPU with weights that are packed once, beside them as they were: twice the memory.

By Numba's kernel (`numba_kernels.multiply`), or where that is not had by oneDNN, which torch brings along.
"""

from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.huge_pages import zeros_in_huge_pages

TYPICAL_ROWS = 32  # for oneDNN
MANY_ROWS = 128
"""From so many on, torch's product with weights as they lie takes no longer than the kernel's."""


class NumbaProduct:
    """A `Product` by the kernel, in as many threads as Numba is told to use (`NumbaAttention.plan`).

    `packed`: [panels, in_features, PANEL], in `memory` of `packed_size` zeros. Raises ImportError without Numba.
    """

    def __init__(self, weight: Tensor, memory: Tensor) -> None:
        from cluster.model.numba_kernels import multiply
        from cluster.model.numba_tile import PANEL

        self._multiply = multiply
        out_features, in_features = weight.shape
        self.packed = memory.view(-1, in_features, PANEL)
        num_whole = out_features // PANEL
        whole, rest = weight[: num_whole * PANEL], weight[num_whole * PANEL :]
        self.packed[:num_whole] = whole.reshape(num_whole, PANEL, in_features).transpose(1, 2)
        if len(rest):
            self.packed[-1, :, : len(rest)] = rest.T

    def __call__(self, rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Of rows [num_rows, in_features]. Raises ValueError, or torch's RuntimeError, for others."""
        if len(rows) >= MANY_ROWS:
            return F.linear(rows, weight, bias)
        if rows.dtype != torch.float32 or rows.shape[1:] != weight.shape[1:]:
            raise ValueError(f"{rows.dtype} rows of {tuple(rows.shape)} by a weight of {tuple(weight.shape)} in fp32")
        product = rows.new_empty(len(rows), len(weight))
        self._multiply(rows.contiguous().numpy(), self.packed.data_ptr(), False, product.numpy())
        return product if bias is None else product.add_(bias)


def packed_size(weight: Tensor) -> int:
    """How many numbers a `NumbaProduct` makes of it. Raises ImportError without Numba."""
    from cluster.model.numba_tile import PANEL

    out_features, in_features = weight.shape
    return -(-out_features // PANEL) * PANEL * in_features


def pack(weights: Iterable[Tensor]) -> list[NumbaProduct]:
    """One for each, side by side in memory."""
    weights = list(weights)
    sizes = [packed_size(weight) for weight in weights]
    parts = torch.split(zeros_in_huge_pages(sum(sizes)), sizes)
    return [NumbaProduct(*own) for own in zip(weights, parts, strict=True)]


def try_kernel() -> None:
    """By whole numbers, whose products are exact. Raises RuntimeError where they are wrong: what was read from disk may
    have been compiled from something else.
    """
    weight, rows = (torch.arange(size * 300).remainder_(7).view(size, 300).float() for size in (70, 13))
    (product,) = pack([weight])
    if not torch.equal(product(rows, weight, None), F.linear(rows, weight)):
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
