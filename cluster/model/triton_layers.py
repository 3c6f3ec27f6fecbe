"""The layers between a model's matrix products on a GPU, one kernel each; and a product that no batch changes."""

from typing import Any

import torch
import triton
from torch import Tensor

from cluster.model.triton_attention import operand_type
from cluster.model.triton_layer_kernels import add_norm_rows, multiply_gates, multiply_tiles


def norm(hidden: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Root mean square norm of rows [num_rows, size]."""
    return _add_norm(hidden, None, weight, eps)


def add_norm(hidden: Tensor, added: Tensor, weight: Tensor, eps: float) -> Tensor:
    """The norm of `hidden + added`, which `hidden` then is."""
    return _add_norm(hidden, added, weight, eps)


def _add_norm(hidden: Tensor, added: Tensor | None, weight: Tensor, eps: float) -> Tensor:
    normed, size = torch.empty_like(hidden), hidden.shape[-1]
    add_norm_rows[(hidden.shape[0],)](
        hidden,
        hidden if added is None else added,
        weight,
        normed,
        eps,
        SIZE=size,
        PADDED=triton.next_power_of_2(size),
        ADDS=added is not None,
        num_warps=8 if size >= 2048 else 4,
    )
    return normed


def silu_multiply(gate_up: Tensor) -> Tensor:
    """silu(gate) * up for [num_rows, 2 * size] to [num_rows, size]."""
    num_rows, size = gate_up.shape[0], gate_up.shape[1] // 2
    product = gate_up.new_empty(num_rows, size)
    block = min(1024, triton.next_power_of_2(size))
    multiply_gates[(num_rows, triton.cdiv(size, block))](gate_up, product, size, BLOCK=block, num_warps=4)
    return product


def invariant_linear(rows: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear`, but a row's result is the same bits whatever rows are beside it, and however many.

    A library picks another kernel, or another split of the sum, for another number of rows; this is always the same.
    """
    num_rows, (out_features, in_features) = rows.shape[0], weight.shape
    product = rows.new_empty(num_rows, out_features)
    tiles = _exact_tiles() if rows.dtype == torch.float32 else _bf16_tiles()
    grid = (triton.cdiv(out_features, tiles["BLOCK_N"]), triton.cdiv(num_rows, tiles["BLOCK_M"]))
    multiply_tiles[grid](
        rows,
        weight,
        weight if bias is None else bias,
        product,
        num_rows,
        IN_FEATURES=in_features,
        OUT_FEATURES=out_features,
        HAS_BIAS=bias is not None,
        OPERAND=operand_type(rows),
        **tiles,
    )
    return product


def _bf16_tiles() -> dict[str, Any]:
    return {"BLOCK_M": 64, "BLOCK_N": 64, "BLOCK_K": 128, "PRECISION": "tf32", "num_warps": 4, "num_stages": 4}


def _exact_tiles() -> dict[str, Any]:
    return {"BLOCK_M": 32, "BLOCK_N": 32, "BLOCK_K": 32, "PRECISION": "ieee", "num_warps": 4, "num_stages": 2}
