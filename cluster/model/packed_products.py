"""Matrix products in fp32 with packed weights: by the MKL that torch brings along on x86 (`cblas_sgemm_pack` and
`cblas_sgemm_compute`), elsewhere by oneDNN.

One packing of MKL's serves one row and many. What is packed for few rows is slow with more, so it is for `PACKED_ROWS`.
Products of any other number of rows are right too: MKL's manual does not promise it, CTranslate2 relies on it, and
`load_mkl` tries it. What is packed may not be copied, and is multiplied fastest by as many threads as packed it.
"""

import ctypes
import logging
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_MAJOR, AS_IT_IS, TRANSPOSED, PACKED, RIGHT_SIDE = 101, 111, 112, 151, 162
PACKED_ROWS = 256
TYPICAL_ROWS = 32  # for oneDNN

MOST_TIMES_ONEDNN = 1.25
"""MKL may take so much longer. On Intel's CPUs it takes less, on those of other makers it may take far more."""

NUM_ROUNDS = 5
"""In which it has to take more than that: a machine that is busy when a model is loaded decides nothing."""

_INT, _POINTER, _FLOAT = ctypes.c_int, ctypes.c_void_p, ctypes.c_float

log = logging.getLogger(__name__)


class Mkl:
    """Raises OSError or AttributeError where torch has none."""

    def __init__(self) -> None:
        library = ctypes.CDLL(os.fspath(Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"))
        self._compute = library.cblas_sgemm_compute
        self._pack, self._pack_size = library.cblas_sgemm_pack, library.cblas_sgemm_pack_get_size
        self._pack_size.restype, self._pack_size.argtypes = ctypes.c_size_t, [_INT] * 4
        self._pack.restype, self._pack.argtypes = None, [*[_INT] * 6, _FLOAT, _POINTER, _INT, _POINTER]
        self._compute.restype = None
        self._compute.argtypes = [*[_INT] * 6, _POINTER, _INT, _POINTER, _INT, _FLOAT, _POINTER, _INT]

    @property
    def compute_address(self) -> int:
        """Of `cblas_sgemm_compute`, for who calls it from C."""
        return ctypes.cast(self._compute, _POINTER).value or 0

    def pack(self, weight: Tensor) -> Tensor:
        """Of a weight [out_features, in_features], bytes that `multiply` reads."""
        weight, shape = weight.contiguous(), (PACKED_ROWS, *weight.shape)
        # It asks for some MB more than it writes to; memory that nobody touches costs nothing.
        packed = torch.empty(self._pack_size(RIGHT_SIDE, *shape), dtype=torch.uint8)
        address, in_features = weight.data_ptr(), weight.shape[1]
        self._pack(ROW_MAJOR, RIGHT_SIDE, TRANSPOSED, *shape, 1.0, address, in_features, packed.data_ptr())
        return packed

    def multiply(self, rows: Tensor, packed: Tensor, shape: tuple[int, ...]) -> Tensor:
        """[num_rows, in_features] times a weight of `shape`, [num_rows, out_features]. Raises ValueError."""
        (num_rows, in_features), (out_features, _) = rows.shape, shape
        if in_features != shape[1] or rows.dtype != torch.float32:
            raise ValueError(f"{rows.dtype} rows of {in_features} by a weight of {tuple(shape)} in fp32")
        torch.get_num_threads()  # in a new thread, torch tells MKL how many only when it is asked
        rows, product = rows.contiguous(), rows.new_empty(num_rows, out_features)
        operands = (rows.data_ptr(), in_features, packed.data_ptr(), in_features)
        sizes = (num_rows, out_features, in_features)
        self._compute(ROW_MAJOR, AS_IT_IS, PACKED, *sizes, *operands, 0.0, product.data_ptr(), out_features)
        return product


@cache
def find_mkl() -> Mkl | None:
    """None where torch has none."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        return Mkl()
    except (OSError, AttributeError):
        return None


@cache
def load_mkl() -> Mkl | None:
    """None where there is none, too, where it does not do what is said above, and where oneDNN is faster."""
    mkl = find_mkl()
    if mkl is None:
        return None
    if not is_right(mkl):
        log.warning("products are not MKL's: with packed weights they are wrong here")
        return None
    if has_onednn() and (ratio := times_onednn(mkl)) > MOST_TIMES_ONEDNN:
        log.warning("products are not MKL's: they take %.1f times as long as oneDNN's here", ratio)
        return None
    return mkl


def is_right(mkl: Mkl) -> bool:
    """For few rows and many, by whole numbers, whose products are exact."""
    weight, rows = (torch.arange(size * 1100).remainder_(7).view(size, 1100).float() for size in (700, PACKED_ROWS + 1))
    packed, right = mkl.pack(weight), F.linear(rows, weight)
    counts = (1, 33, len(rows))
    return all(torch.equal(mkl.multiply(rows[:count], packed, weight.shape), right[:count]) for count in counts)


def times_onednn(mkl: Mkl) -> float:
    """How long MKL's product of a few rows takes, in the best of some rounds. To find out takes some milliseconds."""
    weight, rows = torch.ones(2048, 512), torch.ones(8, 512)
    mkl_packed, onednn_packed = mkl.pack(weight), pack_by_onednn(weight)

    def ratio() -> float:
        own_s = _least_s(lambda: mkl.multiply(rows, mkl_packed, weight.shape))
        return own_s / _least_s(lambda: multiply_by_onednn(rows, onednn_packed))

    return min(ratio() for _ in range(NUM_ROUNDS))


def has_onednn() -> bool:
    return bool(torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)  # type: ignore[no-untyped-call]


def pack_by_onednn(weight: Tensor) -> Tensor:
    packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, TYPICAL_ROWS)
    return packed


def multiply_by_onednn(rows: Tensor, packed: Tensor, bias: Tensor | None = None) -> Tensor:
    product: Tensor = torch.ops.mkldnn._linear_pointwise(rows, packed, bias, "none", [], "")
    return product


def _least_s(call: Callable[[], Tensor]) -> float:
    times_s = []
    for _ in range(7):
        start_s = perf_counter()
        call()
        times_s.append(perf_counter() - start_s)
    return min(times_s)
