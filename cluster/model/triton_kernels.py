"""Triton kernels over the paged KV cache, in its own layout: [block, k/v, layer, slot, head, dim], block outermost.

`cache` always points at the layer's first element, so that one block stride and one value offset serve all layers.
Masked slots are never read: nothing that lies in them, NaN included, can reach a result.
What differs from step to step is not specialized on: nothing is compiled again while requests wait.
OPERAND is what products multiply: the cache's own type, but for bf16 in the interpreter, which cannot.
"""

# mypy: disable-error-code="untyped-decorator,no-untyped-def"

import triton
import triton.language as tl

LOWEST = tl.constexpr(-1e30)  # of a running maximum: minus infinity less itself would be NaN
LOG2_E = tl.constexpr(1.4426950408889634)


@triton.jit(do_not_specialize=["slots"])
def store_heads(
    heads,  # [num_tokens, num_heads + 2 * num_kv_heads, head_dim]
    queries,  # [num_tokens, num_heads, head_dim], if TURNS
    cache,
    slots,  # [num_tokens] of int32, block * block_size + slot; below 0: stored nowhere
    rotations,  # [num_tokens, head_dim / 2, 2] of fp32, cosine and sine, if TURNS
    norms,  # [num_heads + num_kv_heads, head_dim], if NORMS
    eps,
    block_stride,
    value_offset,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_HEADS: tl.constexpr,
    TURNS: tl.constexpr,
    NORMS: tl.constexpr,
):
    """Keys and values to their slots; with TURNS, queries and keys are turned on the way, and queries leave apart.

    One program is one token and BLOCK_HEADS of its heads. Out of place: pairs are read by several threads.
    """
    token = tl.program_id(0).to(tl.int64)
    first_head = 0 if TURNS else NUM_HEADS
    head = first_head + tl.program_id(1) * BLOCK_HEADS + tl.arange(0, BLOCK_HEADS)
    dim = tl.arange(0, PADDED_DIM)
    is_there = (head < NUM_HEADS + 2 * NUM_KV_HEADS)[:, None] & (dim < HEAD_DIM)[None, :]
    row = heads + token * (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM + head[:, None] * HEAD_DIM
    values = tl.load(row + dim[None, :], mask=is_there, other=0.0)
    if TURNS:
        turned = (head < NUM_HEADS + NUM_KV_HEADS)[:, None]
        own = values.to(tl.float32)
        partner = tl.load(row + (dim ^ 1)[None, :], mask=is_there, other=0.0).to(tl.float32)
        if NORMS:
            scale = tl.rsqrt(tl.sum(own * own, axis=1) / HEAD_DIM + eps)[:, None]
            weight_row = norms + head[:, None] * HEAD_DIM
            own *= scale * tl.load(weight_row + dim[None, :], mask=is_there & turned, other=0.0).to(tl.float32)
            partner *= scale * tl.load(weight_row + (dim ^ 1)[None, :], mask=is_there & turned, other=0.0).to(
                tl.float32
            )
        angle = rotations + token * HEAD_DIM + (dim // 2) * 2
        cosine = tl.load(angle, mask=dim < HEAD_DIM, other=1.0)[None, :]
        sine = tl.load(angle + 1, mask=dim < HEAD_DIM, other=0.0)[None, :]
        signed = tl.where((dim % 2 == 0)[None, :], -partner, partner)
        values = tl.where(turned, (own * cosine + signed * sine).to(values.dtype), values)
        query_row = queries + token * NUM_HEADS * HEAD_DIM + head[:, None] * HEAD_DIM
        tl.store(query_row + dim[None, :], values, mask=is_there & (head < NUM_HEADS)[:, None])
    slot = tl.load(slots + token).to(tl.int64)
    if slot >= 0:
        kv_head = head - NUM_HEADS
        is_value = kv_head >= NUM_KV_HEADS
        kv_head = tl.where(is_value, kv_head - NUM_KV_HEADS, kv_head)
        in_slot = is_value.to(tl.int64) * value_offset + kv_head * HEAD_DIM
        record = cache + (slot // BLOCK_SIZE) * block_stride + (slot % BLOCK_SIZE) * (NUM_KV_HEADS * HEAD_DIM)
        is_stored = is_there & (head >= NUM_HEADS)[:, None]
        tl.store(record + in_slot[:, None] + dim[None, :], values, mask=is_stored)


@triton.jit
def attend_tile(
    query,  # [rows, PADDED_DIM]
    last_visible,  # [rows]: the last position that a row sees
    best,
    total,
    weighted,
    first,
    end,
    cache,  # at the KV head
    table,  # of the sequence
    scale,
    block_stride,
    value_offset,
    SLOT_STRIDE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """One tile of BLOCK_N positions from `first` on, none from `end` on, folded into the running softmax."""
    dim = tl.arange(0, PADDED_DIM)
    position = first + tl.arange(0, BLOCK_N)
    is_there = position < end
    block = tl.load(table + position // BLOCK_SIZE, mask=is_there, other=0).to(tl.int64)
    offset = block * block_stride + (position % BLOCK_SIZE) * SLOT_STRIDE
    mask = is_there[:, None] & (dim < HEAD_DIM)[None, :]
    keys = tl.load(cache + offset[:, None] + dim[None, :], mask=mask, other=0.0)
    scores = tl.dot(query.to(OPERAND), tl.trans(keys.to(OPERAND)), input_precision=PRECISION) * (scale * LOG2_E)
    sees = (position[None, :] <= last_visible[:, None]) & is_there[None, :]
    if WINDOW > 0:
        sees = sees & (position[None, :] > last_visible[:, None] - WINDOW)
    scores = tl.where(sees, scores, float("-inf"))
    better = tl.maximum(best, tl.max(scores, axis=1))
    weights = tl.exp2(scores - better[:, None])
    shrink = tl.exp2(best - better)
    values = tl.load(cache + value_offset + offset[:, None] + dim[None, :], mask=mask, other=0.0)
    weighted = weighted * shrink[:, None]
    weighted += tl.dot(weights.to(OPERAND), values.to(OPERAND), input_precision=PRECISION)
    return better, total * shrink + tl.sum(weights, axis=1), weighted


@triton.jit(do_not_specialize=["tables", "contexts", "table_stride"])
def attend_decode(
    queries,
    cache,
    tables,  # [num_sequences, table_stride] of int32
    contexts,  # [num_sequences] of int32: tokens with KV, the new one among them; 0: a row of padding
    outputs,  # [num_sequences, num_heads, head_dim], if NUM_SPLITS is 1
    partial_outputs,  # [num_sequences, num_heads, NUM_SPLITS, head_dim] of fp32, if it is more
    partial_logs,  # [num_sequences, num_heads, NUM_SPLITS] of fp32: base-2 logarithms of the weights' sums
    scale,
    query_stride,
    table_stride,
    block_stride,
    value_offset,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """One token a sequence. A program is one KV head with all queries that share it, over one share of the context.

    Shares depend on the sequence's own length alone (Flash-Decoding, split over the context).
    """
    sequence, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    GROUP: tl.constexpr = NUM_HEADS // NUM_KV_HEADS
    context = tl.load(contexts + sequence)
    start = tl.maximum(context - WINDOW, 0) if WINDOW > 0 else 0
    share = tl.cdiv(tl.cdiv(context - start, NUM_SPLITS), BLOCK_N) * BLOCK_N
    first = start + split * share
    end = tl.minimum(first + share, context)
    row, dim = tl.arange(0, BLOCK_M), tl.arange(0, PADDED_DIM)
    head = kv_head * GROUP + row
    is_there = (row < GROUP)[:, None] & (dim < HEAD_DIM)[None, :]
    query = tl.load(
        queries + sequence * query_stride + head[:, None] * HEAD_DIM + dim[None, :], mask=is_there, other=0.0
    )
    last_visible = tl.zeros([BLOCK_M], tl.int32) + context - 1
    best = tl.zeros([BLOCK_M], tl.float32) + LOWEST
    total = tl.zeros([BLOCK_M], tl.float32)
    weighted = tl.zeros([BLOCK_M, PADDED_DIM], tl.float32)
    for tile in range(first, end, BLOCK_N):
        best, total, weighted = attend_tile(
            query,
            last_visible,
            best,
            total,
            weighted,
            tile,
            end,
            cache + kv_head * HEAD_DIM,
            tables + sequence * table_stride,
            scale,
            block_stride,
            value_offset,
            NUM_KV_HEADS * HEAD_DIM,
            HEAD_DIM,
            PADDED_DIM,
            BLOCK_SIZE,
            BLOCK_N,
            0,
            PRECISION,
            OPERAND,
        )
    weighted = weighted / tl.where(total > 0.0, total, 1.0)[:, None]
    output_row = sequence * NUM_HEADS + head
    if NUM_SPLITS == 1:
        output = outputs + output_row[:, None] * HEAD_DIM + dim[None, :]
        tl.store(output, weighted.to(outputs.dtype.element_ty), mask=is_there)
    elif first < end:
        partial = output_row * NUM_SPLITS + split
        tl.store(partial_outputs + partial[:, None] * HEAD_DIM + dim[None, :], weighted, mask=is_there)
        tl.store(partial_logs + partial, best + tl.log2(total), mask=row < GROUP)


@triton.jit(do_not_specialize=["contexts"])
def combine_splits(
    partial_outputs,
    partial_logs,
    contexts,
    outputs,
    NUM_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_N: tl.constexpr,
    NUM_SPLITS: tl.constexpr,
    PADDED_SPLITS: tl.constexpr,
    WINDOW: tl.constexpr,
):
    """One program is one head of one sequence. Shares that are empty were never written, and are not read."""
    sequence, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    context = tl.load(contexts + sequence)
    visible = tl.minimum(context, WINDOW) if WINDOW > 0 else context
    share = tl.cdiv(tl.cdiv(visible, NUM_SPLITS), BLOCK_N) * BLOCK_N
    split, dim = tl.arange(0, PADDED_SPLITS), tl.arange(0, PADDED_DIM)
    is_there = (split < NUM_SPLITS) & (split * share < visible)
    row = sequence * NUM_HEADS + head
    logs = tl.load(partial_logs + row * NUM_SPLITS + split, mask=is_there, other=LOWEST)
    weights = tl.where(is_there, tl.exp2(logs - tl.max(logs, axis=0)), 0.0)
    partial = partial_outputs + (row * NUM_SPLITS + split)[:, None] * HEAD_DIM + dim[None, :]
    parts = tl.load(partial, mask=is_there[:, None] & (dim < HEAD_DIM)[None, :], other=0.0)
    total = tl.sum(weights, axis=0)
    combined = tl.sum(parts * weights[:, None], axis=0) / tl.where(total > 0.0, total, 1.0)
    tl.store(outputs + row * HEAD_DIM + dim, combined.to(outputs.dtype.element_ty), mask=dim < HEAD_DIM)


@triton.jit(do_not_specialize=["tables", "contexts", "chunk_starts", "table_stride"])
def attend_chunks(
    queries,
    cache,
    tables,  # [num_sequences, table_stride] of int32
    contexts,  # [num_sequences] of int32: tokens with KV, the chunk's among them
    chunk_starts,  # [num_sequences + 1] of int32: where in the step each sequence's tokens begin
    outputs,  # [num_tokens, num_heads, head_dim]
    scale,
    query_stride,
    table_stride,
    block_stride,
    value_offset,
    NUM_HEADS: tl.constexpr,
    NUM_KV_HEADS: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    PADDED_DIM: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    WINDOW: tl.constexpr,
    PRECISION: tl.constexpr,
    OPERAND: tl.constexpr,
):
    """Any number of tokens a sequence, the last ones of its context. A row is a (token, query head) pair of a KV head.

    Tiles of positions begin at multiples of BLOCK_N, and a row's result does not depend on the rows beside it: chunks
    may be cut anywhere, and batches put together anyhow.
    """
    tile, kv_head, sequence = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    GROUP: tl.constexpr = NUM_HEADS // NUM_KV_HEADS
    first_token = tl.load(chunk_starts + sequence)
    num_tokens = tl.load(chunk_starts + sequence + 1) - first_token
    context = tl.load(contexts + sequence)
    if tile * BLOCK_M < num_tokens * GROUP:
        row, dim = tile * BLOCK_M + tl.arange(0, BLOCK_M), tl.arange(0, PADDED_DIM)
        token = row // GROUP
        head = kv_head * GROUP + row % GROUP
        is_there = (token < num_tokens)[:, None] & (dim < HEAD_DIM)[None, :]
        step_token = (first_token + token).to(tl.int64)
        query = tl.load(
            queries + (step_token * query_stride + head * HEAD_DIM)[:, None] + dim[None, :], mask=is_there, other=0.0
        )
        start = context - num_tokens
        last_visible = start + token
        best = tl.zeros([BLOCK_M], tl.float32) + LOWEST
        total = tl.zeros([BLOCK_M], tl.float32)
        weighted = tl.zeros([BLOCK_M, PADDED_DIM], tl.float32)
        first = 0
        if WINDOW > 0:
            lowest = tl.maximum(start + tile * BLOCK_M // GROUP - WINDOW + 1, 0)
            first = lowest // BLOCK_N * BLOCK_N
        end = tl.minimum(start + (tile * BLOCK_M + BLOCK_M - 1) // GROUP + 1, context)
        for position in range(first, end, BLOCK_N):
            best, total, weighted = attend_tile(
                query,
                last_visible,
                best,
                total,
                weighted,
                position,
                context,
                cache + kv_head * HEAD_DIM,
                tables + sequence * table_stride,
                scale,
                block_stride,
                value_offset,
                NUM_KV_HEADS * HEAD_DIM,
                HEAD_DIM,
                PADDED_DIM,
                BLOCK_SIZE,
                BLOCK_N,
                WINDOW,
                PRECISION,
                OPERAND,
            )
        weighted = weighted / tl.where(total > 0.0, total, 1.0)[:, None]
        output = outputs + ((step_token * NUM_HEADS + head) * HEAD_DIM)[:, None] + dim[None, :]
        tl.store(output, weighted.to(outputs.dtype.element_ty), mask=is_there)
