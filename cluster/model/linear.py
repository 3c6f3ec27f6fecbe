"""A matrix product with fixed weights, in the layout that is fast on the device at hand.

On a CPU in fp32 (docs/measurements/engine-cpu.md) weights are packed by MKL, where torch brings it along, or by oneDNN,
beside the weights as they were given: twice the memory. Everywhere else `product` computes with these.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.mkl import load_mkl

TYPICAL_ROWS = 32

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]


class Linear:
    """y = x Wᵀ + b for x [num_rows, in_features] and W [out_features, in_features]."""

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias
        self.out_features, self.in_features = weight.shape
        self.product: Product = F.linear
        self.mkl_packed: Tensor | None = None
        if weight.device.type != "cpu" or weight.dtype != torch.float32:
            return
        if (mkl := load_mkl()) is not None:
            self.mkl_packed = mkl.pack(weight)
            self.product = _product_by_mkl(self.mkl_packed)
        elif torch.backends.mkldnn.enabled:
            self.product = _product_by_onednn(torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS))

    def __call__(self, rows: Tensor) -> Tensor:
        return self.product(rows, self.weight, self.bias)


def _product_by_mkl(packed: Tensor) -> Product:
    mkl = load_mkl()
    assert mkl is not None

    def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = mkl.multiply(rows, packed, len(weight))
        return product if bias is None else product.add_(bias)

    return multiply


def _product_by_onednn(packed: Tensor) -> Product:
    """One row only reads memory, which it does faster without an order of its own."""

    def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(rows) == 1:
            return F.linear(rows, weight, bias)
        product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
        return product

    return multiply
