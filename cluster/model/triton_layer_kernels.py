"""Triton kernels for the layers between matrix products, and for a product that no batch changes."""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl


@triton.jit
def add_norm_rows(hidden, added, weight, normed, eps, SIZE: tl.constexpr, PADDED: tl.constexpr, ADDS: tl.constexpr):
    """One row a program; the sum is rounded to what it is stored as before it is normalised."""
    row, column = tl.program_id(0).to(tl.int64), tl.arange(0, PADDED)
    is_there = column < SIZE
    values = tl.load(hidden + row * SIZE + column, mask=is_there, other=0.0)
    if ADDS:
        others = tl.load(added + row * SIZE + column, mask=is_there, other=0.0)
        values = (values.to(tl.float32) + others.to(tl.float32)).to(values.dtype)
        tl.store(hidden + row * SIZE + column, values, mask=is_there)
    values = values.to(tl.float32)
    scale = tl.rsqrt(tl.sum(values * values, axis=0) / SIZE + eps)
    weights = tl.load(weight + column, mask=is_there, other=0.0).to(tl.float32)
    tl.store(normed + row * SIZE + column, (values * scale * weights).to(normed.dtype.element_ty), mask=is_there)


@triton.jit
def multiply_gates(gate_up, product, size, BLOCK: tl.constexpr):
    """silu(gate) * up, for BLOCK columns of one row."""
    row, column = tl.program_id(0).to(tl.int64), tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    is_there = column < size
    gate = tl.load(gate_up + row * 2 * size + column, mask=is_there, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * 2 * size + size + column, mask=is_there, other=0.0).to(tl.float32)
    value = gate / (1.0 + tl.exp(-gate)) * up
    tl.store(product + row * size + column, value.to(product.dtype.element_ty), mask=is_there)


@triton.jit(do_not_specialize=["num_rows"])
def multiply_tiles(
    rows,  # [num_rows, in_features]
    weight,  # [out_features, in_features]
    bias,
    product,  # [num_rows, out_features]
    num_rows,
    IN_FEATURES: tl.constexpr,
    OUT_FEATURES: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    HAS_BIAS: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """One tile of the product a program, summed over in_features from the first to the last, whatever `num_rows` is."""
    row = tl.program_id(1) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    inner = tl.arange(0, BLOCK_K)
    row_start, column_start = row.to(tl.int64) * IN_FEATURES, column.to(tl.int64) * IN_FEATURES
    total = tl.zeros([BLOCK_M, BLOCK_N], tl.float32)
    for first in range(0, IN_FEATURES, BLOCK_K):
        is_inside = first + inner < IN_FEATURES
        left = tl.load(
            rows + row_start[:, None] + (first + inner)[None, :],
            mask=(row < num_rows)[:, None] & is_inside[None, :],
            other=0.0,
        )
        right = tl.load(
            weight + column_start[None, :] + (first + inner)[:, None],
            mask=(column < OUT_FEATURES)[None, :] & is_inside[:, None],
            other=0.0,
        )
        total += tl.dot(left.to(OPERAND), right.to(OPERAND), input_precision=PRECISION)
    if HAS_BIAS:
        total += tl.load(bias + column, mask=column < OUT_FEATURES, other=0.0).to(tl.float32)[None, :]
    is_there = (row < num_rows)[:, None] & (column < OUT_FEATURES)[None, :]
    place = product + row.to(tl.int64)[:, None] * OUT_FEATURES + column[None, :]
    tl.store(place, total.to(product.dtype.element_ty), mask=is_there)
