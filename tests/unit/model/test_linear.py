"""Products with packed weights against torch's, and what becomes of them where MKL cannot be had."""

import ctypes

import pytest
import torch
import torch.nn.functional as F

from cluster.model import linear, packed_products
from cluster.model.linear import Linear
from cluster.model.packed_products import Mkl, find_mkl, load_mkl
from tests.unit.model.factories import rand

pytestmark = pytest.mark.unit


@pytest.fixture(params=["mkl", "onednn", "neither"])
def packing(request, monkeypatch):
    if request.param == "mkl":
        if load_mkl() is None:
            pytest.skip("torch's MKL does not multiply here")
        return
    monkeypatch.setattr(linear, "load_mkl", lambda: None)
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", request.param == "onednn")


@pytest.mark.parametrize("num_rows", [0, 1, 2, 7, 33, 256, 300])
@pytest.mark.parametrize(("out_features", "in_features"), [(1, 1), (96, 64), (70, 130), (768, 512)])
def test_products_of_any_number_of_rows_are_right(packing, num_rows, out_features, in_features):
    rows, weight, bias = (
        rand(num_rows, in_features),
        rand(out_features, in_features, seed=1),
        rand(out_features, seed=2),
    )
    for own_bias in (None, bias):
        torch.testing.assert_close(
            Linear(weight, own_bias)(rows), F.linear(rows, weight, own_bias), rtol=1e-4, atol=1e-4
        )


def test_weights_and_rows_may_be_views(packing):
    weight, rows = rand(64, 96).t(), rand(200, 8).t()[:, :64]
    product = Linear(weight)(rows)
    torch.testing.assert_close(product, F.linear(rows, weight), rtol=1e-4, atol=1e-4)


def test_a_row_without_a_number_spoils_no_other(packing):
    rows = rand(5, 64)
    rows[2, 7] = float("nan")
    assert Linear(rand(96, 64))(rows).isnan().any(dim=1).tolist() == [False, False, True, False, False]


def test_rows_that_do_not_fit_are_refused():
    product = Linear(rand(96, 64))
    for rows in (rand(3, 65), rand(3, 64).double(), rand(3, 64).bfloat16()):
        with pytest.raises((ValueError, RuntimeError)):
            product(rows)


def test_weights_stay_what_they_were(packing):
    weight = rand(96, 64)
    assert torch.equal(Linear(weight.clone()).weight, weight)


@pytest.fixture
def fresh_mkl():
    for cached in (find_mkl, load_mkl):
        cached.cache_clear()
    yield
    for cached in (find_mkl, load_mkl):
        cached.cache_clear()


def test_without_mkl_there_is_none(fresh_mkl, monkeypatch):
    def fail(*_: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", fail)
    assert load_mkl() is None


def test_an_mkl_that_is_wrong_is_not_used_and_the_log_says_so(fresh_mkl, monkeypatch, caplog):
    if load_mkl() is None:
        pytest.skip("torch's MKL does not multiply here")
    load_mkl.cache_clear()
    right = Mkl.multiply
    monkeypatch.setattr(Mkl, "multiply", lambda mkl, rows, *rest: right(mkl, rows, *rest).add_(len(rows) == 33))
    assert load_mkl() is None
    assert "wrong here" in caplog.text


def test_an_mkl_that_is_slower_than_onednn_is_not_used_and_the_log_says_so(fresh_mkl, monkeypatch, caplog):
    if load_mkl() is None:
        pytest.skip("torch's MKL does not multiply here")
    load_mkl.cache_clear()
    monkeypatch.setattr(packed_products, "times_onednn", lambda _: 3.14)
    assert load_mkl() is None
    assert "3.1 times as long as oneDNN's" in caplog.text
