"""What vectors of numbers do, and that no kernel is read from disk that was compiled from other ones."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

from tests.unit.model.numba_kernels import numba_layers  # noqa: F401  # skips where Numba cannot work

pytestmark = pytest.mark.unit


def test_kernels_on_disk_are_those_of_these_parts():
    from cluster.model import numba_kernels, numba_lanes, numba_tile

    source = b"".join(Path(module.__file__).read_bytes() for module in (numba_lanes, numba_tile))
    assert hashlib.sha256(source).hexdigest()[:12] == numba_kernels.PARTS_HASH, "write this one there"


def test_lanes_are_what_numpy_computes():
    from numba import njit

    from cluster.model.numba_lanes import WIDTH, greater, greatest, load, multiply_add, splat, store, total

    @njit
    def compute(a, b, found, sums):
        for i in range(0, len(a), WIDTH):
            prefer = greater(load(a, i), load(b, i))
            store(found, i, multiply_add(prefer, splat(np.float32(2.0)), load(b, i)))
            sums[0] += total(load(a, i))
            sums[1] = max(sums[1], greatest(load(a, i)))

    generator = np.random.default_rng(0)
    a, b = (generator.standard_normal(3 * WIDTH).astype(np.float32) for _ in range(2))
    found, sums = np.empty_like(a), np.zeros(2, np.float32)
    compute(a, b, found, sums)
    np.testing.assert_allclose(found, np.maximum(a, b) * 2 + b, rtol=1e-6)
    np.testing.assert_allclose(sums, [a.sum(), a.max()], rtol=1e-5)


def test_the_greatest_is_found_beside_what_is_not_a_number():
    from numba import njit

    from cluster.model.numba_lanes import WIDTH, greatest, load

    @njit
    def compute(values):
        return greatest(load(values, 0))

    values = np.arange(WIDTH, dtype=np.float32)
    values[3] = np.nan
    assert compute(values) == WIDTH - 1
