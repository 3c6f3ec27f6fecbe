"""What a device does at its best, measured: bytes of its memory a second, and operations of a matrix product."""

import torch
from torch import Tensor

from deploy.bench.stopwatch import time_s


class MemoryRate:
    """Over so much memory that no cache holds it."""

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        self._device = device
        self._source = torch.ones(num_bytes // 4, dtype=torch.float32, device=device)
        self._target = torch.empty_like(self._source)

    def measure(self, num_times: int = 3) -> float:
        """bytes/s: the best of reading all of it (a sum) and copying it, which reads and writes."""
        return max(self._measure_once() for _ in range(num_times))

    def _measure_once(self) -> float:
        num_bytes, device = self._source.nbytes, self._device
        read_s = time_s(lambda: torch.sum(self._source), device)
        copy_s = time_s(lambda: self._target.copy_(self._source), device)
        return max(num_bytes / read_s, 2 * num_bytes / copy_s)


class ProductRate:
    """Of square matrices, as large as large ones are: nothing the model does is easier."""

    def __init__(self, device: torch.device, dtype: torch.dtype, size: int) -> None:
        self._device = device
        self._size = size
        self._factors: list[Tensor] = [torch.randn(size, size, device=device).to(dtype) for _ in range(2)]
        self._product = torch.empty_like(self._factors[0])

    def measure(self, num_times: int = 5) -> float:
        """Multiplications and additions a second."""
        seconds = time_s(lambda: torch.mm(*self._factors, out=self._product), self._device, num_times)
        return 2.0 * self._size**3 / seconds
