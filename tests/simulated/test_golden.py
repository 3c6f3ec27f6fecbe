"""The outside oracle: DistServe's simulator on the same workloads, under the same assumptions.

The reference files are looked for in `../shared/golden` or BATON_GOLDEN; whatever is there is compared.
"""

import os
from pathlib import Path

import numpy as np
import pytest

from deploy.bench.simulator_oracle import in_order, read_reference, references
from deploy.simulator import Columns, simulate

pytestmark = pytest.mark.simulated

FOLDER = Path(os.environ.get("BATON_GOLDEN", Path(__file__).parents[2].parent / "shared" / "golden"))
FILES = references(FOLDER)


@pytest.mark.skipif(not FILES, reason=f"{FOLDER} holds no reference results: set BATON_GOLDEN")
def test_there_are_reference_results():
    assert len(FILES) >= 1


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name.removesuffix(".csv.gz"))
def test_latencies_are_those_of_the_reference(file):
    reference = read_reference(file)
    columns = Columns()
    report = simulate(reference.cluster(), reference.requests, recorder=columns)
    assert report.num_failed == 0
    ttft_ms, tpot_ms = in_order(columns)
    for name, ours, theirs in (("ttft", ttft_ms, reference.ttft_ms), ("tpot", tpot_ms, reference.tpot_ms)):
        for percentile in (50, 90):
            expected = np.percentile(theirs, percentile)
            worst = int(np.abs(ours - theirs).argmax())
            assert np.percentile(ours, percentile) == pytest.approx(expected, rel=0.02), (
                f"P{percentile} of {name}; request {worst} differs most: {ours[worst]} instead of {theirs[worst]} ms"
            )
    expected = reference.attainment(reference.ttft_ms, reference.tpot_ms)
    assert reference.attainment(ttft_ms, tpot_ms) == pytest.approx(expected, abs=0.01)
