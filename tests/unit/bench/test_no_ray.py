"""What a person with a GPU runs first needs no Ray, wherever in these files an import stands."""

import pytest

from tests.unit.test_house import ROOT, reachable

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("name", ["cli/bench", "bench/engine", "bench/gpu_engine", "bench/links", "bench/gpu_links"])
def test_benchmarks_of_engine_and_links_reach_no_ray(name):
    found = {module.split(".")[0] for module in reachable(ROOT / "deploy" / f"{name}.py")}
    assert "typer" in found or "torch" in found
    assert "ray" not in found
