"""A matrix product with fixed weights, in the layout that is fast on the device at hand.

On a CPU in fp32 (docs/measurements/engine-cpu.md) weights are packed by MKL, where torch brings it along, or by oneDNN,
beside the weights as they were given: twice the memory. Everywhere else `product` computes with these.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.packed_products import Mkl, has_onednn, load_mkl, multiply_by_onednn, pack_by_onednn

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
            self.product = _by_mkl(mkl, self.mkl_packed)
        elif has_onednn():
            self.product = _by_onednn(pack_by_onednn(weight))

    def __call__(self, rows: Tensor) -> Tensor:
        return self.product(rows, self.weight, self.bias)


def _by_mkl(mkl: Mkl, packed: Tensor) -> Product:
    def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        product = mkl.multiply(rows, packed, weight.shape)
        return product if bias is None else product.add_(bias)

    return multiply


def _by_onednn(packed: Tensor) -> Product:
    def multiply(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if len(rows) == 1:  # that only reads the weights, fastest as they lie
            return F.linear(rows, weight, bias)
        return multiply_by_onednn(rows, packed, bias)

    return multiply
