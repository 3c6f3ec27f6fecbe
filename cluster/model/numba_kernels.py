"""What a decode step on a CPU does, in fp32, compiled by Numba: each value is read once.

Torch's operations for it are many and small, none attends to KV blocks where they lie, and its products of few rows
wait for weights that could have been fetched ahead. The threads are torch's own: Numba's threading layer, which takes
the system's libgomp (Debian's `libgomp1`) to load, finds torch's and uses that.
No row's result depends on the others; NaN stays NaN.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, attr-defined, call-arg, var-annotated"

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch  # noqa: F401  # first: its libgomp is the one whose threads are used
from numba import njit, prange
from numba.core import config
from numpy.typing import NDArray

from cluster.model.numba_lanes import (
    WIDTH,
    float_of_bits,
    greater,
    greatest,
    load,
    multiply_add,
    splat,
    store,
    total,
)
from cluster.model.numba_tile import MOST_HEADS, MOST_ROWS, PANEL, multiply_narrow_tile, multiply_tile, score_tile

config.THREADING_LAYER = "omp"
MOST_THREADS: int = config.NUMBA_NUM_THREADS

FASTMATH = {"reassoc", "contract", "nsz", "arcp"}
"""Sums in any order, but nothing that takes NaN and infinity for impossible."""

F32 = np.float32
Floats = NDArray[np.float32]
Int32s = NDArray[np.int32]
Int64s = NDArray[np.int64]
LOG2_E, LEAST_EXPONENT, MOST_EXPONENT = F32(1.4426950408889634), F32(-126.0), F32(126.0)
inlined = njit(inline="always", fastmath=FASTMATH, error_model="numpy")


PARTS_HASH = "5acb6d59101c"
"""Of `numba_lanes.py` and `numba_tile.py`: all else that kernels are made of stands here."""


def kernel(signature: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Compiled when this module is first imported, which takes a while; later read from disk."""
    return njit(signature, parallel=True, fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)


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


# Rows.


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


@kernel("void(f4[:, ::1], i8[::1], f4[::1], f4[:, ::1], f4)")
def norm_some(hidden, rows, weight, normed, eps):
    """normed[i] = norm(hidden[rows[i]]) * weight."""
    for i in prange(len(rows)):
        norm_row(hidden[rows[i]], weight, eps, normed[i])


@kernel("void(f4[:, :, ::1], f4[:, ::1], f4)")
def norm_heads(heads, weights, eps):
    """The first of heads [num_rows, …, head_dim] by weights [num_normed, head_dim], in place."""
    for row in prange(len(heads)):
        for head in range(len(weights)):
            norm_row(heads[row, head], weights[head], eps, heads[row, head])


@kernel("void(f4[:, ::1], f4[:, ::1])")
def multiply_gates(gate_up, product):
    """silu(gate) * up, [num_rows, 2 * size] to [num_rows, size]."""
    num_rows, size = product.shape
    for row in prange(num_rows):
        for i in range(size):
            gate = gate_up[row, i]
            product[row, i] = gate / (F32(1.0) + exp(-gate)) * gate_up[row, size + i]


# Attention of single tokens to blocks where they lie.


class DecodeStep(NamedTuple):
    """Of sequences that get one token each: their block tables, and how many tokens they have with it.

    Rows are taken by `order`, of which each thread gets a stretch; each in `num_parts`, so many KV heads a part.
    """

    tables: Int32s  # [n, blocks]
    contexts: Int32s  # [n]
    order: Int32s  # [n]
    num_parts: int


@inlined
def turn(pairs, rotations, scale, turned):
    """A head of [head_dim] by [head_dim / 2, 2 (cosine, sine)], times `scale`."""
    for i in range(len(rotations)):
        cosine, sine = rotations[i, 0] * scale, rotations[i, 1] * scale
        first, second = pairs[2 * i], pairs[2 * i + 1]
        turned[2 * i] = first * cosine - second * sine
        turned[2 * i + 1] = first * sine + second * cosine


@inlined
def softmax(scores, count):
    """Of the first `count`; the others, which fill up the last vector, are 0 afterwards."""
    scores[count:] = scores[0]
    most = load(scores, 0)
    for i in range(WIDTH, len(scores), WIDTH):
        most = greater(load(scores, i), most)
    offset = greatest(most)
    for i in range(len(scores)):
        scores[i] = exp(scores[i] - offset)
    scores[count:] = F32(0.0)
    sums = splat(F32(0.0))
    for i in range(0, len(scores), WIDTH):
        sums = multiply_add(load(scores, i), splat(F32(1.0)), sums)
    scale = splat(F32(1.0) / total(sums))
    for i in range(0, len(scores), WIDTH):
        store(scores, i, multiply_add(load(scores, i), scale, splat(F32(0.0))))


@inlined
def score(queries, group, head_dim, keys, pitch, count, scores, stride, following):
    """scores [group, stride] = queries [group, head_dim] times keys, `pitch` numbers apart: addresses, all four."""
    for head in range(0, group, MOST_HEADS):
        own, target = queries + 4 * head * head_dim, scores + 4 * head * stride
        score_tile(min(group - head, MOST_HEADS), own, head_dim, keys, pitch, count, target, stride, following)


@inlined
def add_values(weights, stride, group, values, pitch, count, outputs, head_dim, adds, following):
    """outputs [group, head_dim] = weights [group, stride] times values, + what was there if `adds`, as in `score`."""
    whole = head_dim - head_dim % PANEL
    for head in range(0, group, MOST_ROWS):
        num_heads, own = min(group - head, MOST_ROWS), weights + 4 * head * stride
        for at in range(0, 4 * whole, 4 * PANEL):
            target = outputs + 4 * head * head_dim + at
            multiply_tile(
                num_heads, own, stride, values + at, pitch, count, target, head_dim, adds, following + at, 4 * pitch
            )
        for at in range(4 * whole, 4 * head_dim, 4 * WIDTH):
            target = outputs + 4 * head * head_dim + at
            multiply_narrow_tile(
                num_heads, own, stride, values + at, pitch, count, target, head_dim, adds, following + at, 4 * pitch
            )


@kernel(
    "void(f4[:, :, ::1], f4[:, :, ::1], f4[:, :, :, :, :, ::1], i8, i4[:, ::1], i4[::1], i4[::1], i8, f4[:, :, ::1])"
)
def turn_and_attend(heads, rotations, cache, layer, tables, contexts, order, num_parts, outputs):
    """Of one token a sequence: turns its queries and key, stores its key and value, and attends to its context.

    heads [n, num_heads + 2 * num_kv_heads, head_dim]; rotations [n, head_dim / 2, 2]; cache as `KVCache.tensor`;
    outputs [n, num_heads, head_dim]; the others as in `DecodeStep`. head_dim is a multiple of WIDTH.
    """
    num_heads, num_kv_heads, head_dim = outputs.shape[1], cache.shape[4], cache.shape[5]
    block_size, group = cache.shape[3], num_heads // num_kv_heads
    part_size, scale = num_kv_heads // num_parts, F32(1.0) / np.sqrt(F32(head_dim))
    pitch, values_at = num_kv_heads * head_dim, 4 * cache.shape[2] * block_size * num_kv_heads * head_dim
    block_bytes = 2 * values_at
    for task in prange(len(contexts) * num_parts):
        row, first_kv_head = order[task // num_parts], task % num_parts * part_size
        table, context, queried = tables[row], contexts[row], first_kv_head * group
        start = np.int64(cache.ctypes.data) + 4 * (layer * block_size * num_kv_heads + first_kv_head) * head_dim
        num_blocks, first_values = -(-context // block_size), values_at + block_bytes * table[0]
        last, slot = table[num_blocks - 1], (context - 1) % block_size
        for kv_head in range(first_kv_head, first_kv_head + part_size):
            turn(heads[row, num_heads + kv_head], rotations[row], F32(1.0), cache[last, 0, layer, slot, kv_head])
            cache[last, 1, layer, slot, kv_head] = heads[row, num_heads + num_kv_heads + kv_head]
        queries = np.empty((part_size, group, head_dim), np.float32)
        for head in range(part_size * group):
            turn(heads[row, queried + head], rotations[row], scale, queries[head // group, head % group])
        size = -(-context // WIDTH) * WIDTH
        scores = np.empty((part_size * group, size), np.float32)
        for index in range(num_blocks):
            first = index * block_size
            keys, count = start + block_bytes * table[index], min(block_size, context - first)
            following = start + (block_bytes * table[index + 1] if index + 1 < num_blocks else first_values)
            for part in range(part_size):
                at = 4 * part * head_dim
                own = np.int64(queries.ctypes.data) + at * group
                target = np.int64(scores.ctypes.data) + 4 * (part * group * size + first)
                score(own, group, head_dim, keys + at, pitch, count, target, size, following + at)
        for head in range(part_size * group):
            softmax(scores[head], context)
        for index in range(num_blocks):
            first = index * block_size
            values, count = start + values_at + block_bytes * table[index], min(block_size, context - first)
            following = start + values_at + block_bytes * table[min(index + 1, num_blocks - 1)]
            for part in range(part_size):
                at = 4 * part * head_dim
                own = np.int64(scores.ctypes.data) + 4 * (part * group * size + first)
                target = np.int64(outputs.ctypes.data) + 4 * (row * num_heads + queried) * head_dim + at * group
                add_values(own, size, group, values + at, pitch, count, target, head_dim, first > 0, following + at)


# Products with weights, packed as [panels, in_features, PANEL].

BLOCK_DEPTH, NEAR = 128, 64
"""Where there are several tiles of rows, each multiplies so much of a panel's depth before the next does: it, and what
comes behind it and is fetched meanwhile, fit into the first cache. One tile alone fetches what is so near ahead.
"""


@inlined
def multiply_panel(rows, num_rows, panel, depth, adds, products, stride):
    """PANEL columns of products [num_rows, stride] = rows [num_rows, depth] times a panel: addresses all three."""
    num_tiles = -(-num_rows // MOST_ROWS)
    tile_rows = -(-num_rows // num_tiles)
    most = depth if num_tiles == 1 else BLOCK_DEPTH
    pace = 4 * PANEL // num_tiles  # all tiles together fetch what comes behind a block once
    for first in range(0, depth, most):
        size = min(most, depth - first)
        block = panel + 4 * PANEL * first
        behind = block + 4 * PANEL * (NEAR if num_tiles == 1 else size)
        for tile in range(num_tiles):
            row = tile * tile_rows
            count = min(tile_rows, num_rows - row)
            own, target = rows + 4 * (row * depth + first), products + 4 * row * stride
            ahead = behind + tile * size * pace
            multiply_tile(count, own, depth, block, PANEL, size, target, stride, adds or first > 0, ahead, pace)


@kernel("void(f4[:, ::1], i8, b1, f4[:, ::1])")
def multiply(rows, packed, adds, products):
    """products [n, out_features] = rows [n, in_features] times the weight packed at this address, + what was there if
    `adds`. Each thread has a stretch of panels. No row's sums depend on how many there are.
    """
    num_rows, depth = rows.shape
    num_columns = products.shape[1]
    num_panels, num_whole = -(-num_columns // PANEL), num_columns // PANEL
    if num_rows == 0:
        return
    rest = np.empty((num_rows if num_whole < num_panels else 0, PANEL), np.float32)
    for index in prange(num_panels):
        panel, is_whole = packed + 4 * PANEL * index * depth, index < num_whole
        # Of one type: a signed and an unsigned address would become a float.
        target = np.int64(products.ctypes.data + 4 * PANEL * index) if is_whole else np.int64(rest.ctypes.data)
        stride = num_columns if is_whole else PANEL
        multiply_panel(rows.ctypes.data, num_rows, panel, depth, adds and is_whole, target, stride)
    for row in range(len(rest)):
        for column in range(num_whole * PANEL, num_columns):
            before = products[row, column] if adds else F32(0.0)
            products[row, column] = before + rest[row, column - num_whole * PANEL]


# A step as a whole.


class DecoderWeights(NamedTuple):
    """Of L layers. `products` and `lm_head`: addresses of packed weights. Biases that are not there are empty."""

    embedding: Floats  # [vocab_size, hidden_size]
    inverse_frequencies: Floats  # [head_dim / 2]
    attention_norms: Floats  # [L, hidden_size]
    mlp_norms: Floats  # [L, hidden_size]
    head_norms: Floats  # [L, 0 or num_heads + num_kv_heads, head_dim]
    qkv_biases: Floats  # [L, 0 or all heads' size]
    output_biases: Floats  # [L, 0 or hidden_size]
    products: Int64s  # [L, 4 (qkv, output, gate and up, down)]
    norm: Floats  # [hidden_size]
    lm_head: int
    eps: np.float32


class Buffers(NamedTuple):
    """Of [n, …]."""

    hidden: Floats
    normed: Floats
    rotations: Floats  # [n, head_dim / 2, 2]
    heads: Floats  # [n, num_heads + 2 * num_kv_heads, head_dim]
    attended: Floats  # [n, num_heads, head_dim]
    gate_up: Floats
    gated: Floats
    logits: Floats


@kernel("void(f4[:, ::1], f4[::1], i8[::1], i8[::1], f4[:, ::1], f4[:, :, ::1])")
def begin(embedding, inverse_frequencies, token_ids, positions, hidden, rotations):
    """Of tokens [n]: their embeddings, and by how much queries and keys are turned, as `Rope.rotations` has it."""
    for row in prange(len(token_ids)):
        hidden[row] = embedding[token_ids[row]]
        for i in range(len(inverse_frequencies)):
            angle = F32(positions[row]) * inverse_frequencies[i]
            rotations[row, i, 0], rotations[row, i, 1] = np.cos(angle), np.sin(angle)


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def add_bias(bias, rows):
    if len(bias):
        for row in range(len(rows)):
            rows[row] += bias


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def decode_layer(weights, layer, buffers, cache, step):
    """The residual stream, which is in `buffers.hidden`, through one layer."""
    hidden, normed, rotations, heads, attended, gate_up, gated, _ = buffers
    qkv, output, gates, down = weights.products[layer]
    num_rows, eps = len(hidden), weights.eps
    add_norm_rows(hidden, hidden, weights.attention_norms[layer], normed, eps, False)
    multiply(normed, qkv, False, heads.reshape(num_rows, -1))
    add_bias(weights.qkv_biases[layer], heads.reshape(num_rows, -1))
    if weights.head_norms.size:
        norm_heads(heads, weights.head_norms[layer], eps)
    tables, contexts, order, num_parts = step
    turn_and_attend(heads, rotations, cache, layer, tables, contexts, order, num_parts, attended)
    multiply(attended.reshape(num_rows, -1), output, True, hidden)
    add_bias(weights.output_biases[layer], hidden)
    add_norm_rows(hidden, hidden, weights.mlp_norms[layer], normed, eps, False)
    multiply(normed, gates, False, gate_up)
    multiply_gates(gate_up, gated)
    multiply(gated, down, True, hidden)


@njit(fastmath=FASTMATH, error_model="numpy", cache=True, nogil=True)
def decode(weights, token_ids, positions, sampled, buffers, cache, step):
    """One token of each of n sequences through a decoder: to logits, in their order, of the rows `sampled`."""
    hidden, normed = buffers.hidden, buffers.normed
    begin(weights.embedding, weights.inverse_frequencies, token_ids, positions, hidden, buffers.rotations)
    for layer in range(len(weights.products)):
        decode_layer(weights, layer, buffers, cache, step)
    if len(sampled):
        norm_some(hidden, sampled, weights.norm, normed, weights.eps)
        multiply(normed[: len(sampled)], weights.lm_head, False, buffers.logits[: len(sampled)])
