"""Matrix products in fp32 by the MKL that torch brings along on x86, with packed weights: `cblas_sgemm_pack` and
`cblas_sgemm_compute`.

One packing serves one row and many. What is packed for few rows is slow with more, so it is for `PACKED_ROWS`; products
of any other number of rows are right as well, which MKL's manual does not promise, CTranslate2 relies on, and
`load_mkl` tries.
"""

import ctypes
import os
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

ROW_MAJOR, AS_IT_IS, TRANSPOSED, PACKED, RIGHT_SIDE = 101, 111, 112, 151, 162
PACKED_ROWS = 256

_INT, _POINTER, _FLOAT = ctypes.c_int, ctypes.c_void_p, ctypes.c_float


class Mkl:
    """Its functions; raises OSError or AttributeError where torch has none."""

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
        return ctypes.cast(self._compute, ctypes.c_void_p).value or 0

    def pack(self, weight: Tensor) -> Tensor:
        """Of a weight [out_features, in_features], bytes that `multiply` reads."""
        weight, shape = weight.contiguous(), (PACKED_ROWS, *weight.shape)
        # Asked for is some MB more than is written to; memory that is never touched costs nothing.
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
    """None where there is none, or where it does not do what is said above."""
    if not torch.backends.mkl.is_available():
        return None
    try:
        mkl = Mkl()
    except (OSError, AttributeError):
        return None
    return mkl if all(_is_right(mkl, num_rows) for num_rows in (1, 2, 33, PACKED_ROWS + 1)) else None


def _is_right(mkl: Mkl, num_rows: int) -> bool:
    """Whole numbers, whose products are exact."""
    weight, rows = (torch.arange(size * 48).remainder_(7).view(size, 48).float() for size in (80, num_rows))
    return torch.equal(mkl.multiply(rows, mkl.pack(weight), len(weight)), F.linear(rows, weight))
