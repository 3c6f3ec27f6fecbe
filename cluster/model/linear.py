"""A matrix product with fixed weights."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of rows, weight and bias."""


class Linear:
    """y = x Wᵀ + b for x [num_rows, in_features] and W [out_features, in_features].

    Who computes steps may have it multiplied by another `product`: docs/measurements/engine-cpu.md, docs/gpu.md.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None) -> None:
        self.weight, self.bias = weight, bias
        self.out_features, self.in_features = weight.shape
        self.product: Product = F.linear

    def __call__(self, rows: Tensor) -> Tensor:
        return self.product(rows, self.weight, self.bias)
