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

SLOWER = 1.25
"""So many times what oneDNN takes: on Intel's CPUs it is less than 1, on those of other makers it may be more."""

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

    def multiply(self, rows: Tensor, packed: Tensor, out_features: int) -> Tensor:
        """[num_rows, in_features] times the weight, [num_rows, out_features]."""
        rows = rows.contiguous()
        num_rows, in_features = rows.shape
        product = rows.new_empty(num_rows, out_features)
        operands = (rows.data_ptr(), in_features, packed.data_ptr(), in_features)
        shape = (num_rows, out_features, in_features)
        self._compute(ROW_MAJOR, AS_IT_IS, PACKED, *shape, *operands, 0.0, product.data_ptr(), out_features)
        return product


@cache
def load_mkl() -> Mkl | None:
    """None where there is none, where it does not do what is said above, and where oneDNN is faster."""
    if not torch.backends.mkl.is_available():  # type: ignore[no-untyped-call]
        return None
    try:
        mkl = Mkl()
    except (OSError, AttributeError):
        return None
    if not all(is_right(mkl, num_rows) for num_rows in (1, 2, 33, PACKED_ROWS + 1)):
        log.warning("products are not MKL's: with packed weights they are wrong here")
        return None
    if torch.backends.mkldnn.enabled and (ratio := time_ratio(mkl)) > SLOWER:
        log.info("products are not MKL's: they take %.1f times as long as oneDNN's here", ratio)
        return None
    return mkl


def is_right(mkl: Mkl, num_rows: int) -> bool:
    """By whole numbers, whose products are exact."""
    weight, rows = (torch.arange(size * 48).remainder_(7).view(size, 48).float() for size in (80, num_rows))
    return torch.equal(mkl.multiply(rows, mkl.pack(weight), len(weight)), F.linear(rows, weight))


def time_ratio(mkl: Mkl) -> float:
    """To oneDNN's product, of a few rows; it takes some milliseconds."""
    weight, rows = torch.ones(2048, 512), torch.ones(8, 512)
    mkl_packed, onednn_packed = mkl.pack(weight), pack_by_onednn(weight)
    return _least_s(lambda: mkl.multiply(rows, mkl_packed, len(weight))) / _least_s(
        lambda: multiply_by_onednn(rows, onednn_packed)
    )


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
