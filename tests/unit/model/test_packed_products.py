"""Products with packed weights against torch's."""

import pytest
import torch
import torch.nn.functional as F

from cluster.model.packed_products import MANY_ROWS, NumbaProduct, OneDnnProduct, has_onednn
from tests.unit.model.factories import rand
from tests.unit.model.numba_kernels import numba_layers  # noqa: F401  # skips where Numba cannot work

pytestmark = pytest.mark.unit


@pytest.fixture(params=[NumbaProduct, OneDnnProduct])
def product_of(request):
    if request.param is OneDnnProduct and not has_onednn():
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


@pytest.mark.parametrize(("out_features", "in_features"), [(96, 64), (70, 300)])
def test_the_kernel_adds_to_what_is_there_if_asked(out_features, in_features):
    from cluster.model.numba_kernels import multiply

    rows, weight, before = rand(5, in_features), rand(out_features, in_features, seed=1), rand(5, out_features, seed=2)
    product, products = NumbaProduct(weight), before.clone()
    multiply(rows.numpy(), product.packed.data_ptr(), True, products.numpy())
    torch.testing.assert_close(products, before + F.linear(rows, weight), rtol=1e-4, atol=1e-4)


def test_a_rows_product_is_the_same_bits_beside_any_others():
    rows, weight = rand(40, 600), rand(70, 600, seed=1)
    product = NumbaProduct(weight)
    together = product(rows, weight, None)
    for size in (1, 3, 12, 13, 25):
        assert torch.equal(product(rows[:size], weight, None), together[:size])


def test_weights_and_rows_may_be_views(product_of):
    weight, rows = rand(64, 96).t(), rand(200, 8).t()[:, :64]
    product = product_of(weight)(rows, weight, None)
    torch.testing.assert_close(product, F.linear(rows, weight), rtol=1e-4, atol=1e-4)


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
