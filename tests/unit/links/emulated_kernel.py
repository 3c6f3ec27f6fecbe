"""The checksum kernel's own source on a CPU: g++ compiles it, and every CUDA thread is a thread."""

import ctypes
import subprocess
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.links.xxh3_kernel import CODE

_BEFORE = r"""
#include <barrier>
#include <memory>
#include <thread>
#include <vector>
#define __constant__ static const
#define __device__
#define __forceinline__ inline
#define __global__
#define __launch_bounds__(...)
#define __shared__ static
struct uint4 { unsigned x, y, z, w; };
struct Index { unsigned x; };
thread_local Index threadIdx, blockIdx;
using Barrier = std::unique_ptr<std::barrier<>>;
static Barrier all, warps[32];
static unsigned long long lanes[32][32];
static void __syncthreads() { all->arrive_and_wait(); }
static unsigned long long __shfl_xor_sync(unsigned, unsigned long long value, int distance) {
    const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    lanes[warp][lane] = value;
    warps[warp]->arrive_and_wait();
    const unsigned long long found = lanes[warp][lane ^ distance];
    warps[warp]->arrive_and_wait();
    return found;
}
static unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned __int128)a * b >> 64;
}
"""
_AFTER = r"""
extern "C" void launch(const char* records, const long long* ids, unsigned count, u64 record_bytes, u64* checksums) {
    const unsigned size = 32 * (1 + READERS);
    for (unsigned block = 0; block < count; block++) {
        all = std::make_unique<std::barrier<>>(size);
        for (unsigned warp = 0; warp < size / 32; warp++) warps[warp] = std::make_unique<std::barrier<>>(32);
        std::vector<std::thread> threads;
        for (unsigned thread = 0; thread < size; thread++)
            threads.emplace_back([=] {
                threadIdx.x = thread, blockIdx.x = block;
                xxh3_records(records, ids, record_bytes, checksums);
            });
        for (auto& thread : threads) thread.join();
    }
}
"""


class EmulatedKernel:
    def __init__(self, folder: Path) -> None:
        (folder / "kernel.cpp").write_text(_BEFORE + CODE + _AFTER)
        command = ["g++", "-O1", "-std=c++20", "-shared", "-fPIC", "-pthread", "kernel.cpp", "-o", "kernel.so"]
        subprocess.run(command, cwd=folder, check=True)
        self._launch = ctypes.CDLL(str(folder / "kernel.so")).launch

    def __call__(self, records: NDArray[np.uint8], block_ids: list[int]) -> list[int]:
        """`records`: [num_records, record_bytes], from a multiple of 16 on."""
        ids, found = np.array(block_ids, np.int64), np.zeros(len(block_ids), np.uint64)
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (records, ids, found)]
        count, record_bytes = ctypes.c_uint(len(block_ids)), ctypes.c_uint64(records.shape[1])
        self._launch(pointers[0], pointers[1], count, record_bytes, pointers[2])
        return [int(each) for each in found]
