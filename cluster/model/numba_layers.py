"""The layers between a model's matrix products on a CPU in fp32, one kernel each, as `fused_forward` takes them."""

import torch
from torch import Tensor

from cluster.model.numba_kernels import add_norm_rows, multiply_gates


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm of rows [num_rows, size]."""
    return _add_norm(hidden, hidden, weight, eps, adds=False)


def add_norm(hidden: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The norm of `hidden + added`, which `hidden` then is."""
    return _add_norm(hidden, added, weight, eps, adds=True)


def _add_norm(hidden: Tensor, added: Tensor, weight: Tensor, eps: float, *, adds: bool) -> Tensor:
    normed = torch.empty_like(hidden)
    add_norm_rows(hidden.numpy(), added.numpy(), weight.numpy(), normed.numpy(), eps, adds)
    return normed


def silu_multiply(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for [num_rows, 2 * size] to [num_rows, size]."""
    product = gate_up.new_empty(gate_up.shape[0], gate_up.shape[1] // 2)
    multiply_gates(gate_up.numpy(), product.numpy())
    return product
