"""Products with packed weights against torch's."""

import importlib
import os
import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from cluster.model.packed_products import MANY_ROWS, NumbaProduct, OneDnnProduct, has_onednn, pack, try_kernel
from tests.unit.model.factories import rand

pytestmark = pytest.mark.unit


@pytest.fixture
def numba():
    importlib.import_module("tests.unit.model.numba_kernels")  # skips where Numba cannot work


def pack_one(weight):
    (product,) = pack([weight])
    return product


@pytest.fixture(params=[pack_one, OneDnnProduct])
def product_of(request):
    if request.param is pack_one:
        request.getfixturevalue("numba")
    elif not has_onednn():
        pytest.skip("torch has no oneDNN here")
    return request.param


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 12, 13, 33, MANY_ROWS - 1, MANY_ROWS])
@pytest.mark.parametrize(("out_features", "in_features"), [(1, 1), (96, 64), (70, 300), (768, 512)])
def test_products_of_any_number_of_rows_are_right(product_of, num_rows, out_features, in_features):
    rows, weight, bias = (
        rand(num_rows, in_features),
        rand(out_features, in_features, seed=1),
        rand(out_features, seed=2),
    )
    product = product_of(weight)
    for own_bias in (None, bias):
        right = F.linear(rows, weight, own_bias)
        torch.testing.assert_close(product(rows, weight, own_bias), right, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("num_rows", [1, 5, MANY_ROWS + 50])
@pytest.mark.parametrize(("out_features", "in_features"), [(96, 64), (70, 300)])
def test_the_kernel_adds_to_what_is_there_if_asked_and_takes_many_rows_too(numba, num_rows, out_features, in_features):
    from cluster.model.numba_kernels import multiply

    shapes = (num_rows, in_features), (out_features, in_features), (num_rows, out_features)
    rows, weight, before = (rand(*shape, seed=seed) for seed, shape in enumerate(shapes))
    product, products = pack_one(weight), before.clone()
    for adds, right in ((True, before + F.linear(rows, weight)), (False, F.linear(rows, weight))):
        multiply(rows.numpy(), product.packed.data_ptr(), adds, products.numpy())
        torch.testing.assert_close(products, right, rtol=1e-4, atol=1e-4)


def test_a_rows_product_is_the_same_bits_beside_any_others(numba):
    rows, weight = rand(40, 600), rand(70, 600, seed=1)
    product = pack_one(weight)
    together = product(rows, weight, None)
    for size in (1, 3, 12, 13, 25):
        assert torch.equal(product(rows[:size], weight, None), together[:size])


def test_weights_and_rows_may_be_views(product_of):
    weight, rows = rand(64, 96).t(), rand(200, 8).t()[:, :64]
    product = product_of(weight)(rows, weight, None)
    torch.testing.assert_close(product, F.linear(rows, weight), rtol=1e-4, atol=1e-4)


def test_several_weights_lie_side_by_side_and_do_not_disturb_each_other(numba):
    weights = [rand(70, 30), rand(96, 64, seed=1), rand(1, 30, seed=2)]
    products = pack(iter(weights))
    ends = [product.packed.data_ptr() + 4 * product.packed.numel() for product in products]
    assert [product.packed.data_ptr() for product in products[1:]] == ends[:-1]
    for product, weight in zip(products, weights, strict=True):
        rows = rand(3, weight.shape[1], seed=3)
        torch.testing.assert_close(product(rows, weight, None), F.linear(rows, weight), rtol=1e-4, atol=1e-4)


def test_a_row_without_a_number_spoils_no_other(product_of):
    rows, weight = rand(5, 64), rand(96, 64)
    rows[2, 7] = float("nan")
    assert product_of(weight)(rows, weight, None).isnan().any(dim=1).tolist() == [False, False, True, False, False]


@pytest.mark.parametrize("num_rows", [3, MANY_ROWS])
def test_rows_that_do_not_fit_are_refused(product_of, num_rows):
    weight = rand(96, 64)
    product = product_of(weight)
    for rows in (rand(num_rows, 65), rand(num_rows, 64).double(), rand(num_rows, 64).bfloat16()):
        with pytest.raises((ValueError, RuntimeError)):
            product(rows, weight, None)


def test_a_kernel_that_is_wrong_is_noticed(numba, monkeypatch):
    try_kernel()
    right = NumbaProduct.__call__
    monkeypatch.setattr(NumbaProduct, "__call__", lambda *it: right(*it).add_(1))
    with pytest.raises(RuntimeError, match="wrong"):
        try_kernel()


TILES = """
import numpy as np
from numba import njit
from cluster.model.numba_lanes import WIDTH
from cluster.model.numba_tile import MOST_HEADS, MOST_ROWS, PANEL, multiply_narrow_tile, multiply_tile, score_tile

@njit
def multiply(count, rows, panel, products, adds):
    pitch, depth, stride = rows.shape[1], len(panel), products.shape[1]
    addresses = rows.ctypes.data, panel.ctypes.data, products.ctypes.data
    multiply_tile(count, addresses[0], pitch, addresses[1], PANEL, depth, addresses[2], stride, adds, addresses[1], 0)

@njit
def multiply_narrow(count, rows, panel, products, adds):
    addresses = rows.ctypes.data, panel.ctypes.data, products.ctypes.data
    pitch, (depth, width), stride = rows.shape[1], panel.shape, products.shape[1]
    multiply_narrow_tile(
        count, addresses[0], pitch, addresses[1], width, depth, addresses[2], stride, adds, addresses[1], 0
    )

@njit
def score(queries, keys, scores):
    (num_heads, head_dim), (count, pitch), stride = queries.shape, keys.shape, scores.shape[1]
    addresses = queries.ctypes.data, keys.ctypes.data, scores.ctypes.data
    score_tile(num_heads, addresses[0], head_dim, addresses[1], pitch, count, addresses[2], stride, addresses[1])

generator = np.random.default_rng(0)
panel, values = (generator.standard_normal((33, width), np.float32) for width in (PANEL, 80))
for count in range(1, MOST_ROWS + 1):
    rows = generator.standard_normal((count, 35), np.float32)
    products = np.zeros((count, PANEL + 3), np.float32)
    for times in (1, 2):
        multiply(count, rows, panel, products, times - 1)
        np.testing.assert_allclose(products[:, :PANEL], times * rows[:, :33] @ panel, rtol=1e-4, atol=1e-4)
        narrow = np.zeros((count, WIDTH), np.float32)
        multiply_narrow(count, rows, values, narrow, 0)
        np.testing.assert_allclose(narrow, rows[:, :33] @ values[:, :WIDTH], rtol=1e-4, atol=1e-4)
    assert (products[:, PANEL:] == 0).all()
for num_heads in range(1, MOST_HEADS + 1):
    queries, keys = (generator.standard_normal(shape, np.float32) for shape in ((num_heads, 48), (7, 80)))
    scores = np.zeros((num_heads, 10), np.float32)
    score(queries, keys, scores)
    np.testing.assert_allclose(scores[:, :7], queries @ keys[:, :48].T, rtol=1e-4, atol=1e-4)
    assert (scores[:, 7:] == 0).all()
print(PANEL, MOST_ROWS)
"""


@pytest.mark.parametrize(
    ("features", "sizes"),
    [({}, [["32", "12"], ["16", "6"]]), ({"NUMBA_CPU_NAME": "generic", "NUMBA_CPU_FEATURES": ""}, [["16", "6"]])],
)
def test_tiles_are_right_and_smaller_where_registers_are_narrow(numba, features, sizes):
    done = subprocess.run(
        [sys.executable, "-c", TILES], env={**os.environ, **features}, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.split() in sizes, done.stderr
