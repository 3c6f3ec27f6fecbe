"""The figures that come with the package: made by the script from its sources, and nothing in them that cannot be."""

import os
from pathlib import Path

import numpy as np
import pytest

from cluster.latency.bundled import read_json
from deploy.profiling.bundle import DATA, GPUS, bundle, halved, lawful

pytestmark = pytest.mark.unit

SOURCES = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[4] / "shared/traces")) / "profiles"


def test_they_are_what_the_script_makes_of_its_sources():
    if not SOURCES.exists():
        pytest.skip(f"{SOURCES} is not there; BATON_TRACES says where the traces are")
    for name, text in bundle(SOURCES).items():
        assert (DATA / name).read_text() == text, f"{name}: run `python -m deploy.profiling.bundle SOURCES`"


def test_they_are_small_and_name_source_and_licence():
    files = sorted(DATA.iterdir())
    assert sum(file.stat().st_size for file in files) < 400_000
    for file in files:
        content = read_json(file.name)
        assert content["source"].startswith("github.com/")
        assert content["licence"] == "Apache-2.0"


@pytest.mark.parametrize("gpu", GPUS)
def test_what_is_smaller_takes_no_longer(gpu):
    tables = read_json(f"kernels_{gpu}.json")
    for name in ("gemm", "context_attention", "generation_attention", "custom_allreduce"):
        times = np.array(tables[name]["us"])
        assert times.min() > 0
        assert all((np.diff(times, axis=axis) >= 0).all() for axis in range(times.ndim))


def test_a_disturbed_timing_is_taken_out():
    times = np.array([[1.0, 5.0, 3.0, 4.0]])
    assert lawful(times, (1,)).tolist() == [[1.0, 3.0, 3.0, 4.0]]
    assert halved(np.array([[1.0, 2.5, 3.0]]), (8, 16, 32)).tolist() == [[1.0, 2.0, 3.0]]
