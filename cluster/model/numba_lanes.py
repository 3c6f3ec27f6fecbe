"""For Numba's kernels: `WIDTH` fp32 numbers at once, where its compiler does not see by itself that a loop can be.

Numba reads kernels from disk again as long as the file that they stand in has not changed. So whoever changes this one
or `numba_tile.py` has to change `PARTS_HASH` in `numba_kernels.py`, which a test asks for.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, call-arg"

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WIDTH = 16
VECTOR, FLOAT, INT32 = ir.VectorType(ir.FloatType(), WIDTH), ir.FloatType(), ir.IntType(32)


class Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name=f"Lanes{WIDTH}")


lanes = Lanes()


@register_model(Lanes)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager, numba_type) -> None:
        super().__init__(manager, numba_type, VECTOR)


def _address(context, builder, row_type, row, index, pointer):
    """Of row[index]; rows have one dimension and no gaps, and nobody checks their bounds."""
    return builder.bitcast(builder.gep(context.make_array(row_type)(context, builder, row).data, [index]), pointer)


@intrinsic
def load(typing_context, row, index):
    """row[index : index + WIDTH]."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments, VECTOR.as_pointer())
        return builder.load(address, align=4)

    return lanes(row, types.int64), generate


@intrinsic
def store(typing_context, row, index, value):
    """row[index : index + WIDTH] = value."""

    def generate(context, builder, signature, arguments):
        address = _address(context, builder, signature.args[0], *arguments[:2], VECTOR.as_pointer())
        builder.store(arguments[2], address, align=4)
        return context.get_dummy_value()

    return types.void(row, types.int64, lanes), generate


def fetch(builder, address):
    """Emits a hint that what lies at an address will be read soon."""
    kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, INT32, INT32, INT32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0i8")
    to_read, to_keep, data = INT32(0), INT32(3), INT32(1)
    builder.call(function, [address, to_read, to_keep, data])


@intrinsic
def splat(typing_context, value):
    """The same number in all lanes."""

    def generate(context, builder, signature, arguments):
        return fill(builder, arguments[0])

    return lanes(types.float32), generate


def fill(builder, value):
    """Emits what `splat` does."""
    undefined = ir.Constant(VECTOR, ir.Undefined)
    first = builder.insert_element(undefined, value, INT32(0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, WIDTH), [0] * WIDTH))


@intrinsic
def multiply_add(typing_context, a, b, c):
    """a * b + c, rounded once where the CPU can."""

    def generate(context, builder, signature, arguments):
        product = builder.fmul(*arguments[:2], flags=("contract",))
        return builder.fadd(product, arguments[2], flags=("contract",))

    return lanes(lanes, lanes, lanes), generate


@intrinsic
def greater(typing_context, a, b):
    """Lane by lane; b where one is not a number."""

    def generate(context, builder, signature, arguments):
        return builder.select(builder.fcmp_ordered(">", *arguments), *arguments)

    return lanes(lanes, lanes), generate


def _reduction(builder, name, *arguments):
    kind = ir.FunctionType(FLOAT, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.vector.reduce.{name}.v{WIDTH}f32")
    return builder.call(function, arguments, fastmath=("reassoc", "nsz"))


@intrinsic
def total(typing_context, value):
    """The sum of all lanes."""

    def generate(context, builder, signature, arguments):
        return _reduction(builder, "fadd", FLOAT(-0.0), *arguments)

    return types.float32(lanes), generate


@intrinsic
def greatest(typing_context, value):
    """Of all lanes; what is not a number is passed over, as long as there is another."""

    def generate(context, builder, signature, arguments):
        return _reduction(builder, "fmax", *arguments)

    return types.float32(lanes), generate


@intrinsic
def float_of_bits(typing_context, bits):
    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], FLOAT)

    return types.float32(types.int32), generate
