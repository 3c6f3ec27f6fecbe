"""For Numba's kernels: some rows times a panel of a packed weight, whose sums stay in registers meanwhile.

A panel is `PANEL` columns of a product, row by row of the weight: each of its vectors is read once and multiplied by a
number of each row (the inner kernel of Goto and van de Geijn, Anatomy of High-Performance Matrix Multiplication, 2008).
What is multiplied next is fetched into the cache meanwhile, which matters more than all else where there are few rows.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.registry import cpu_target
from numba.extending import intrinsic

from cluster.model.numba_lanes import FLOAT, VECTOR, WIDTH, fetch, fill

_triple, _name, _features = cpu_target.target_context.codegen().magic_tuple()
HAS_WIDE_REGISTERS = "+avx512f" in _features  # 32 that hold a vector each; others hold a half or a quarter
NUM_VECTORS, MOST_ROWS = (2, 12) if HAS_WIDE_REGISTERS else (1, 6)
PANEL = NUM_VECTORS * WIDTH

INT64, FLOAT_BYTES, LINE_BYTES = ir.IntType(64), 4, 64


@intrinsic
def multiply_tile(typing_context, num_rows, rows, pitch, panel, depth, products, stride, adds, ahead, pace):
    """products [num_rows, PANEL] = rows [num_rows, depth] times panel [depth, PANEL]. If `adds` is not 0, sums go on
    from what is there, so that they are the same in several parts of `depth`.

    `rows`, `panel` and `products` are addresses; `pitch` and `stride`, how many numbers rows and products are apart.
    From `ahead` on, NUM_VECTORS lines are fetched for each of `depth`, `pace` bytes further every time.
    """

    def generate(context, builder, signature, arguments):
        end = builder.append_basic_block("multiplied")
        choice = builder.switch(arguments[0], end)
        for count in range(1, MOST_ROWS + 1):
            choice.add_case(INT64(count), block := builder.append_basic_block(f"rows_{count}"))
            builder.position_at_end(block)
            _multiply(builder, count, *arguments[1:])
            builder.branch(end)
        builder.position_at_end(end)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 10), generate


def _multiply(builder, count, rows, pitch, panel, depth, products, stride, adds, ahead, pace):
    """For a number of rows that is known as this is compiled."""
    sums = [[cgutils.alloca_once(builder, VECTOR) for _ in range(NUM_VECTORS)] for _ in range(count)]
    places = [
        (each, _at(builder, stride, row, vector * WIDTH))
        for row, line in enumerate(sums)
        for vector, each in enumerate(line)
    ]
    with builder.if_else(builder.icmp_signed("!=", adds, INT64(0))) as (with_what_is_there, from_nothing):
        with with_what_is_there:
            for each, at in places:
                builder.store(_load(builder, products, at, VECTOR), each)
        with from_nothing:
            for each, _ in places:
                builder.store(ir.Constant(VECTOR, None), each)
    starts = [builder.add(rows, _at(builder, pitch, row * FLOAT_BYTES, 0)) for row in range(count)]
    with cgutils.for_range(builder, depth) as loop:
        line = builder.add(ahead, builder.mul(loop.index, pace))
        for vector in range(NUM_VECTORS):
            address = builder.add(line, INT64(vector * LINE_BYTES))
            fetch(builder, builder.inttoptr(address, cgutils.voidptr_t))
        weights = [
            _load(builder, panel, _at(builder, loop.index, PANEL, v * WIDTH), VECTOR) for v in range(NUM_VECTORS)
        ]
        for row in range(count):
            lanes = fill(builder, _load(builder, starts[row], loop.index, FLOAT))
            for weight, each in zip(weights, sums[row], strict=True):
                product = builder.fmul(lanes, weight, flags=("contract",))
                builder.store(builder.fadd(product, builder.load(each), flags=("contract",)), each)
    for each, at in places:
        builder.store(builder.load(each), _pointer(builder, products, at, VECTOR), align=FLOAT_BYTES)


def _at(builder, factor, times, plus):
    """factor * times + plus."""
    return builder.add(builder.mul(factor, INT64(times)), INT64(plus))


def _pointer(builder, address, index, kind):
    """To the fp32 number of this index, as `kind`."""
    first = builder.inttoptr(address, FLOAT.as_pointer())
    return builder.bitcast(builder.gep(first, [index]), kind.as_pointer())


def _load(builder, address, index, kind):
    return builder.load(_pointer(builder, address, index, kind), align=FLOAT_BYTES)
