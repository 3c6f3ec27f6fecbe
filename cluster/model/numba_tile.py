"""For Numba's kernels: products of some rows whose sums stay in registers meanwhile.

A panel is `PANEL` columns of a packed weight, row by row, or of values that are attended to: each of its vectors is
read once and multiplied by a number of each row (the inner kernel of Goto and van de Geijn, Anatomy of
High-Performance Matrix Multiplication, 2008). Keys, whose numbers are summed up, are multiplied by some queries at a
time. What is multiplied next is fetched into the cache meanwhile, which matters more than all else with few rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from cluster.model.numba_lanes import FLOAT, INT32, VECTOR, WIDTH, fetch, fill

_triple, _name, _features = cpu_target.target_context.codegen().magic_tuple()
HAS_WIDE_REGISTERS = "+avx512f" in _features  # 32 that hold a vector each; others hold a half or a quarter
NUM_VECTORS, MOST_ROWS = (2, 12) if HAS_WIDE_REGISTERS else (1, 6)
PANEL = NUM_VECTORS * WIDTH
MOST_HEADS = 4  # whose sums are folded together

INT64, FLOAT_BYTES, LINE_BYTES = ir.IntType(64), 4, 64
ZEROS, MASK = ir.Constant(VECTOR, None), ir.VectorType(INT32, WIDTH)


def _tile_of(num_vectors):
    @intrinsic
    def multiply(typing_context, num_rows, rows, pitch, panel, width, depth, products, stride, adds, ahead, pace):
        """products [num_rows, num_vectors * WIDTH] = rows [num_rows, depth] times panel [depth, num_vectors * WIDTH].

        If `adds` is not 0, sums go on from what is there, so that they are the same in several parts of `depth`.
        `rows`, `panel` and `products` are addresses; `pitch`, `width` and `stride`, how many numbers one of their rows
        is behind the last. From `ahead` on, as much as a row of the panel is fetched for each of `depth`, `pace` bytes
        further every time.
        """

        def generate(context, builder, signature, arguments):
            _for_count(
                builder, MOST_ROWS, arguments[0], lambda count: _multiply(builder, count, num_vectors, *arguments[1:])
            )
            return context.get_dummy_value()

        return types.void(*[types.int64] * 11), generate

    return multiply


multiply_tile, multiply_narrow_tile = _tile_of(NUM_VECTORS), _tile_of(1)


def _for_count(builder, most, count, emit):
    """Emits for each of 1 to `most` what is done when `count` is that; for others nothing is."""
    end = builder.append_basic_block("done")
    choice = builder.switch(count, end)
    for number in range(1, most + 1):
        choice.add_case(INT64(number), block := builder.append_basic_block(f"count_{number}"))
        builder.position_at_end(block)
        emit(number)
        builder.branch(end)
    builder.position_at_end(end)


def _multiply(builder, count, num_vectors, rows, pitch, panel, width, depth, products, stride, adds, ahead, pace):
    """For a number of rows that is known as this is compiled."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(num_vectors)] for _ in range(count)]
    places = [
        (each, _at(builder, stride, row, vector * WIDTH))
        for row, line in enumerate(sums)
        for vector, each in enumerate(line)
    ]
    with builder.if_else(builder.icmp_signed("!=", adds, INT64(0))) as (with_what_is_there, from_nothing):
        with with_what_is_there:
            for each, index in places:
                builder.store(_load_at(builder, products, index, VECTOR), each)
        with from_nothing:
            for each, _ in places:
                builder.store(ZEROS, each)
    starts = [builder.add(rows, _at(builder, pitch, row * FLOAT_BYTES, 0)) for row in range(count)]
    with cgutils.for_range(builder, depth) as loop:
        _fetch_line(builder, builder.add(ahead, builder.mul(loop.index, pace)), num_vectors)
        first = builder.mul(loop.index, width)
        weights = [_load_at(builder, panel, _at(builder, first, 1, v * WIDTH), VECTOR) for v in range(num_vectors)]
        for row in range(count):
            lanes = fill(builder, _load_at(builder, starts[row], loop.index, FLOAT))
            for weight, each in zip(weights, sums[row], strict=True):
                _add_product(builder, lanes, weight, each)
    for each, index in places:
        builder.store(builder.load(each), _pointer(builder, products, index, VECTOR), align=FLOAT_BYTES)


@intrinsic
def score_tile(typing_context, num_heads, queries, head_dim, keys, pitch, count, scores, stride, ahead):
    """scores [num_heads, count] = queries [num_heads, head_dim] times keys [count, head_dim].

    `queries`, `keys` and `scores` are addresses; `pitch` and `stride`, how many numbers keys and rows of scores are
    apart. From `ahead` on, as much is fetched as is read of the keys.
    """

    def generate(context, builder, signature, arguments):
        _for_count(builder, MOST_HEADS, arguments[0], lambda heads: _score(builder, heads, *arguments[1:]))
        return context.get_dummy_value()

    return types.void(*[types.int64] * 9), generate


def _score(builder, num_heads, queries, head_dim, keys, pitch, count, scores, stride, ahead):
    starts = [builder.add(queries, _at(builder, head_dim, head * FLOAT_BYTES, 0)) for head in range(num_heads)]
    targets = [builder.add(scores, _at(builder, stride, head * FLOAT_BYTES, 0)) for head in range(num_heads)]
    sums = [cgutils.alloca_once(builder, VECTOR) for _ in range(num_heads)]
    num_vectors = builder.udiv(head_dim, INT64(WIDTH))
    with cgutils.for_range(builder, count) as key:
        offset = builder.mul(key.index, builder.mul(pitch, INT64(FLOAT_BYTES)))
        own, following = builder.add(keys, offset), builder.add(ahead, offset)
        for each in sums:
            builder.store(ZEROS, each)
        with cgutils.for_range(builder, num_vectors) as loop:
            index = builder.mul(loop.index, INT64(WIDTH))
            _fetch_line(builder, builder.add(following, _at(builder, index, FLOAT_BYTES, 0)), 1)
            vector = _load_at(builder, own, index, VECTOR)
            for start, each in zip(starts, sums, strict=True):
                _add_product(builder, vector, _load_at(builder, start, index, VECTOR), each)
        vectors = [builder.load(each) for each in sums]
        totals = _fold(builder, vectors + vectors[-1:] * (MOST_HEADS - num_heads))
        for head, target in enumerate(targets):
            score = builder.extract_element(totals, INT32(head))
            builder.store(score, _pointer(builder, target, key.index, FLOAT), align=FLOAT_BYTES)


def _fold(builder, vectors):
    """A vector that begins with the sums of `MOST_HEADS` others: halves are added, then quarters, and so on."""
    size = WIDTH
    while size > 1:
        size //= 2
        kept = [start + i for start in range(0, 2 * WIDTH, 2 * size) for i in range(size)]
        masks = [ir.Constant(MASK, [lane + shift for lane in kept]) for shift in (0, size)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True) if len(vectors) > 1 else [(vectors[0], vectors[0])]
        vectors = [builder.fadd(*(builder.shuffle_vector(*pair, mask) for mask in masks)) for pair in pairs]
    return vectors[0]


def _fetch_line(builder, address, num_vectors):
    for vector in range(num_vectors):
        line = builder.add(address, INT64(vector * LINE_BYTES))
        fetch(builder, builder.inttoptr(line, cgutils.voidptr_t))


def _add_product(builder, one, other, to):
    product = builder.fmul(one, other, flags=("contract",))
    builder.store(builder.fadd(product, builder.load(to), flags=("contract",)), to)


def _at(builder, factor, times, plus):
    """factor * times + plus."""
    return builder.add(builder.mul(factor, INT64(times)), INT64(plus))


def _pointer(builder, address, index, kind):
    """To the fp32 number of this index, as `kind`."""
    first = builder.inttoptr(address, FLOAT.as_pointer())
    return builder.bitcast(builder.gep(first, [index]), kind.as_pointer())


def _load_at(builder, address, index, kind):
    return builder.load(_pointer(builder, address, index, kind), align=FLOAT_BYTES)
