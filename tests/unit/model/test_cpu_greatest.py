"""Where rows are greatest, by Numba's kernel and by NumPy."""

import importlib

import pytest
import torch

from cluster.model import cpu_greatest
from cluster.model.cpu_greatest import greatest_on_cpu
from tests.unit.model.factories import rand

pytestmark = pytest.mark.unit

NAN, INF = float("nan"), float("inf")


@pytest.fixture(autouse=True, params=["numba", "numpy"])
def kernel(request, monkeypatch):
    found = None
    if request.param == "numba":
        importlib.import_module("tests.unit.model.numba_kernels")  # skips where Numba cannot work
        found = importlib.import_module("cluster.model.numba_kernels").greatest_in_parts
    monkeypatch.setattr(cpu_greatest, "kernel", found)


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 100, 1024, 1025, 32_000, 33_333])
def test_it_is_the_first_of_the_greatest(size):
    rows = rand(5, size).mul_(8).round_()  # with many that are as great
    values, columns = greatest_on_cpu(rows)
    assert torch.equal(values, rows.amax(dim=-1))
    assert columns.tolist() == [row.tolist().index(row.max().item()) for row in rows]


@pytest.mark.parametrize("size", [3, 40, 5000])
@pytest.mark.parametrize(
    ("strange", "found"), [({1: NAN, 2: INF}, 1), ({0: INF, 2: NAN}, 2), ({0: -INF, 1: INF}, 1), ({0: -INF}, None)]
)
def test_what_is_not_finite(size, strange, found):
    rows = rand(3, size)
    for column, value in strange.items():
        rows[1, column] = value
    values, columns = greatest_on_cpu(rows)
    expected = rows[1].nan_to_num(neginf=-1e9).argmax() if found is None else found
    assert columns[1] == expected
    torch.testing.assert_close(values[1], rows[1, expected], equal_nan=True)
    assert torch.equal(values[[0, 2]], rows[[0, 2]].amax(dim=-1))


def test_nothing_is_greater_than_less_than_all():
    values, columns = greatest_on_cpu(torch.full((2, 50), -INF))
    assert (values == -INF).all()
    assert columns.tolist() == [0, 0]


def test_of_no_rows_there_is_none():
    values, columns = greatest_on_cpu(torch.empty(0, 7))
    assert values.shape == columns.shape == (0,)
