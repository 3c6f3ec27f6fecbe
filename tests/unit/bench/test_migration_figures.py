"""What `baton bench migration` makes of its samples: by hand-made times, so that every figure is known."""

import pytest

from deploy.bench.migration_moves import handovers
from deploy.bench.migration_report import aims, slope_ms_per_mib

pytestmark = pytest.mark.unit

MIB = 2**20


def test_a_handovers_parts_are_told_apart_and_transfers_side_by_side_count_once():
    lines = [
        ("reserve", "r", 2, 0.0, 0),
        ("offer", "r", 2, 1.0, 8),
        ("offer", "r", 2, 1.5, 8),
        ("sent", "r", 2, 2.0, 8),
        ("sent", "r", 2, 3.0, 8),
        ("offer", "r", 2, 4.0, 1),
        ("sent", "r", 2, 4.5, 1),
        ("pass", "r", 2, 5.0, 0),
        ("activated", "r", 2, 7.0, 0),
    ]
    (handover,) = handovers(list(reversed(lines))).values()
    assert (handover.num_blocks, handover.num_transfers) == (17, 3)
    assert (handover.reserve_s, handover.transfer_s, handover.frozen_s) == (1.0, 4.0, 2.0)
    assert handover.link_s == pytest.approx(2.5)


def row(mib: int, **figures: float) -> dict[str, float]:
    met = {
        "num_tokens": 256 * mib,
        "bytes": mib * MIB,
        "added_gap_ms": 3.0,
        "added_gap_steps": 0.3,
        "busy_added_gap_steps": 0.6,
        "busy_added_gap_p99_steps": 1.2,
        "blocking_copy_ms": 1.0 * mib,
        "others_throughput_share": 0.98,
        "transfer_share": 0.8,
        "link_share": 0.9,
    }
    return {**met, **figures}


def test_a_gap_that_does_not_grow_has_no_slope():
    rows = [row(1), row(8), row(64)]
    assert slope_ms_per_mib(rows, "added_gap_ms") == pytest.approx(0.0)
    assert slope_ms_per_mib(rows, "blocking_copy_ms") == pytest.approx(1.0)
    assert all(aim["is_met"] for aim in aims(rows))


@pytest.mark.parametrize(
    ("figures", "missed"),
    [
        ({"added_gap_steps": 0.51}, "added gap, idle"),
        ({"busy_added_gap_p99_steps": 1.8}, "p99"),
        ({"added_gap_ms": 30.0}, "slope"),
        ({"link_share": 0.7}, "link use"),
        ({"others_throughput_share": 0.9}, "throughput of others"),
        ({"transfer_share": 0.6}, "transfer"),
    ],
)
def test_the_worst_row_decides(figures, missed):
    (aim,) = [aim for aim in aims([row(1), row(64, **figures)]) if not aim["is_met"]]
    assert missed in aim["aim"]
