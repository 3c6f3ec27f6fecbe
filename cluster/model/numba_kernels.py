"""What a decode step on a CPU does between its matrix products, in fp32, compiled by Numba: each value is read once.

Torch's operations for it are many and small, and none attends to KV blocks where they lie. The threads are torch's own:
Numba's threading layer, which takes the system's libgomp (Debian's `libgomp1`) to load, finds torch's and uses that.
No row's result depends on the others; NaN stays NaN.
"""

# mypy: disable-error-code="no-untyped-def, attr-defined, call-arg"

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch  # noqa: F401  # first: its libgomp is the one whose threads are used
from llvmlite import ir
from numba import njit, prange, types
from numba.core import config
from numba.extending import intrinsic
from numpy.typing import NDArray

config.THREADING_LAYER = "omp"
MOST_THREADS: int = config.NUMBA_NUM_THREADS

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
"""Sums in any order, but nothing that takes NaN and infinity for impossible."""

F32 = np.float32
Floats = NDArray[np.float32]
LOG2_E, LEAST_EXPONENT, MOST_EXPONENT = F32(1.4426950408889634), F32(-126.0), F32(126.0)
inlined = njit(inline="always", fastmath=FASTMATH, error_model="numpy")


# What kernels take as one stands here, because Numba reads them from disk again as long as this file has not changed.


class DecodeStep(NamedTuple):
    """Of sequences that get one token each: their block tables, and how many tokens they have with it.

    Rows are taken by `order`, of which each thread gets a stretch.
    """

    tables: NDArray[np.int32]  # [n, blocks]
    contexts: NDArray[np.int32]  # [n]
    order: NDArray[np.int32]  # [n]


class LayerWeights(NamedTuple):
    """`head_norms` [0 or num_heads + num_kv_heads, head_dim]; biases, where there are none, are empty."""

    attention_norm: Floats
    qkv: Floats
    qkv_bias: Floats
    head_norms: Floats
    output: Floats
    output_bias: Floats
    mlp_norm: Floats
    gate_up: Floats
    down: Floats
    no_bias: Floats


class Buffers(NamedTuple):
    """All of one row."""

    hidden: Floats
    normed: Floats
    heads: Floats  # [1, num_heads + 2 * num_kv_heads, head_dim]
    attended: Floats  # [1, num_heads, head_dim]
    gate_up: Floats
    gated: Floats
    product: Floats


def kernel(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compiled when this module is first imported, which takes a while; later read from disk."""
    return njit(signature, parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)


@intrinsic
def float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


@inlined
def exp(value):
    """e^value to 1e-5 of it: 2^whole times a polynomial fitted to 2^rest, so that a loop of it is vectorised."""
    power = value * LOG2_E
    power = LEAST_EXPONENT if power < LEAST_EXPONENT else power
    power = MOST_EXPONENT if power > MOST_EXPONENT else power
    whole = np.floor(power)
    rest = power - whole
    series = F32(0.0018775767)
    series = series * rest + F32(0.0089893397)
    series = series * rest + F32(0.055826318)
    series = series * rest + F32(0.24015361)
    series = series * rest + F32(0.69315308)
    series = series * rest + F32(0.99999994)
    return series * float_of_bits((np.int32(whole) + np.int32(127)) << np.int32(23))


@inlined
def norm_row(values, weight, eps, normed):
    """normed = values over their root mean square, times weight; `normed` may be `values`."""
    squares = F32(0.0)
    for i in range(len(values)):
        squares += values[i] * values[i]
    scale = F32(1.0) / np.sqrt(squares / F32(len(values)) + eps)
    for i in range(len(values)):
        normed[i] = values[i] * scale * weight[i]


@kernel("void(f4[:, ::1], f4[:, ::1], f4[::1], f4[:, ::1], f4, b1)")
def add_norm_rows(hidden, added, weight, normed, eps, adds):
    """normed = norm(hidden + added) * weight, the sum left in `hidden`; all [num_rows, size]."""
    for row in prange(len(hidden)):
        values = hidden[row]
        if adds:
            for i in range(len(values)):
                values[i] += added[row, i]
        norm_row(values, weight, eps, normed[row])


@kernel("void(f4[:, ::1], f4[:, ::1])")
def multiply_gates(gate_up, product):
    """silu(gate) * up, [num_rows, 2 * size] to [num_rows, size]."""
    num_rows, size = product.shape
    for row in prange(num_rows):
        for i in range(size):
            gate = gate_up[row, i]
            product[row, i] = gate / (F32(1.0) + exp(-gate)) * gate_up[row, size + i]


@kernel("void(f4[::1], f4[:, ::1], f4[::1], f4[::1])")
def multiply_row(row, weight, bias, product):
    """product [out_features] = weight [out_features, in_features] times row, plus bias, unless that is empty.

    It takes as long as reading the weights, which each thread does from one end of its part to the other.
    """
    for i in prange(len(weight)):
        weights, total = weight[i], F32(0.0)
        for j in range(len(row)):
            total += weights[j] * row[j]
        product[i] = total
    for i in range(len(bias)):
        product[i] += bias[i]


@inlined
def turn(pairs, rotations, scale, turned):
    """A head of [head_dim] by [head_dim / 2, 2 (cosine, sine)], times `scale`."""
    for i in range(len(rotations)):
        cosine, sine = rotations[i, 0] * scale, rotations[i, 1] * scale
        first, second = pairs[2 * i], pairs[2 * i + 1]
        turned[2 * i] = first * cosine - second * sine
        turned[2 * i + 1] = first * sine + second * cosine


@inlined
def softmax(scores):
    greatest = scores[0]
    for i in range(len(scores)):
        greatest = scores[i] if scores[i] > greatest else greatest
    total = F32(0.0)
    for i in range(len(scores)):
        scores[i] = exp(scores[i] - greatest)
        total += scores[i]
    for i in range(len(scores)):
        scores[i] /= total


@inlined
def score(queries, block, kv_head, first, count, scores):
    """scores[:, first + i] = queries [group, head_dim] times a key of block [block_size, num_kv_heads, head_dim]."""
    for head in range(len(queries)):
        query = queries[head]
        for i in range(count):
            key, total = block[i, kv_head], F32(0.0)
            for d in range(len(query)):
                total += query[d] * key[d]
            scores[head, first + i] = total


@inlined
def add_values(weights, block, kv_head, first, count, outputs):
    """outputs [group, head_dim] += weights[:, first + i] times a value; four at once: sums stay in registers."""
    fours = count - count % 4
    for head in range(len(outputs)):
        output, weight = outputs[head], weights[head]
        for i in range(0, fours, 4):
            a, b, c, e = block[i, kv_head], block[i + 1, kv_head], block[i + 2, kv_head], block[i + 3, kv_head]
            j = first + i
            for d in range(len(output)):
                output[d] += weight[j] * a[d] + weight[j + 1] * b[d] + weight[j + 2] * c[d] + weight[j + 3] * e[d]
        for i in range(fours, count):
            value = block[i, kv_head]
            for d in range(len(output)):
                output[d] += weight[first + i] * value[d]


@kernel("void(f4[:, :, ::1], f4[:, :, ::1], f4[:, :, :, :, :, ::1], i8, i4[:, ::1], i4[::1], i4[::1], f4[:, :, ::1])")
def turn_and_attend(heads, rotations, cache, layer, tables, contexts, order, outputs):
    """Of one token a sequence: turns its queries and key, stores its key and value, and attends to its context.

    heads [n, num_heads + 2 * num_kv_heads, head_dim]; rotations [n, head_dim / 2, 2]; cache as `KVCache.tensor`;
    outputs [n, num_heads, head_dim]; the others as in `DecodeStep`.
    """
    num_heads, num_kv_heads, head_dim = outputs.shape[1], cache.shape[4], cache.shape[5]
    block_size, group = cache.shape[3], num_heads // num_kv_heads
    scale = F32(1.0) / np.sqrt(F32(head_dim))
    for task in prange(len(contexts) * num_kv_heads):
        row, kv_head = order[task // num_kv_heads], task % num_kv_heads
        table, context, own = tables[row], contexts[row], slice(kv_head * group, (kv_head + 1) * group)
        last, slot = table[(context - 1) // block_size], (context - 1) % block_size
        turn(heads[row, num_heads + kv_head], rotations[row], F32(1.0), cache[last, 0, layer, slot, kv_head])
        cache[last, 1, layer, slot, kv_head] = heads[row, num_heads + num_kv_heads + kv_head]
        queries, attended = np.empty((group, head_dim), np.float32), outputs[row, own]
        for head in range(group):
            turn(heads[row, kv_head * group + head], rotations[row], scale, queries[head])
        scores = np.empty((group, context), np.float32)
        for first in range(0, context, block_size):
            keys = cache[table[first // block_size], 0, layer]
            score(queries, keys, kv_head, first, min(block_size, context - first), scores)
        for head in range(group):
            softmax(scores[head])
        attended[:] = F32(0.0)
        for first in range(0, context, block_size):
            values = cache[table[first // block_size], 1, layer]
            add_values(scores, values, kv_head, first, min(block_size, context - first), attended)


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def decode_layer(weights, buffers, eps, rotations, cache, layer, step):
    """One token of one sequence through a layer, the residual stream in `buffers`; whose blocks `step` names."""
    hidden, normed, heads, attended, gate_up, gated, product = buffers
    add_norm_rows(hidden, hidden, weights.attention_norm, normed, eps, False)
    multiply_row(normed[0], weights.qkv, weights.qkv_bias, heads.reshape(-1))
    for head in range(len(weights.head_norms)):
        norm_row(heads[0, head], weights.head_norms[head], eps, heads[0, head])
    turn_and_attend(heads, rotations, cache, layer, step.tables, step.contexts, step.order, attended)
    multiply_row(attended.reshape(-1), weights.output, weights.output_bias, product[0])
    add_norm_rows(hidden, product, weights.mlp_norm, normed, eps, True)
    multiply_row(normed[0], weights.gate_up, weights.no_bias, gate_up[0])
    multiply_gates(gate_up, gated)
    multiply_row(gated[0], weights.down, weights.no_bias, product[0])
    for i in range(hidden.shape[1]):
        hidden[0, i] += product[0, i]
