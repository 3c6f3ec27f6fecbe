import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.links.link_stats import NUM_SAMPLES, LinkStats, fit

pytestmark = pytest.mark.unit

SIZES = st.lists(st.integers(1, 1 << 30), min_size=2, max_size=NUM_SAMPLES)


def test_nothing_is_known_before_the_first_transfer():
    assert fit(()) == (0.0, 0.0)


@given(sizes=SIZES, alpha_s=st.floats(1e-6, 1e-2), beta=st.floats(1e6, 1e11))
def test_latency_and_bandwidth_of_a_steady_link_are_found(sizes, alpha_s, beta):
    assume(max(sizes) > 2 * min(sizes))
    # What is to be told apart has to be larger than a float's rounding.
    assume((max(sizes) - min(sizes)) / beta > 1e-6 * alpha_s)
    assert fit(tuple((n, alpha_s + n / beta) for n in sizes)) == pytest.approx((alpha_s, beta), rel=1e-3)


def test_a_few_stalls_do_not_move_the_estimate():
    samples = [(n << 20, 1e-4 + (n << 20) / 1e9) for n in range(1, 21)]
    stalled = [(n, t + 5.0) if index % 7 == 0 else (n, t) for index, (n, t) in enumerate(samples)]
    alpha_s, beta = fit(tuple(stalled))
    assert beta == pytest.approx(1e9, rel=0.1)
    assert alpha_s < 0.01


def test_transfers_of_one_size_are_all_bandwidth():
    assert fit(((1 << 20, 1e-3),) * 5) == (0.0, pytest.approx((1 << 20) / 1e-3))


def test_a_slowed_link_is_seen_as_slow_after_as_many_transfers_as_are_kept():
    stats = LinkStats(source="a", target="b", source_rank=0, target_rank=0)
    for beta in (1e9, 1e6):
        for n in range(NUM_SAMPLES):
            stats.sent((n + 1) << 16, ((n + 1) << 16) / beta)
    assert stats.status().beta_bytes_per_s == pytest.approx(1e6, rel=1e-3)


def test_another_transport_is_measured_anew():
    stats = LinkStats(source="a", target="b", source_rank=0, target_rank=0)
    stats.connected("shm", "")
    stats.sent(1 << 20, 1e-3)
    stats.connected("tcp", "no shm: why")
    assert stats.status().beta_bytes_per_s == 0.0
    assert stats.status().note == "no shm: why"
    assert stats.status().num_transfers == 1
