import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from cluster.topology.fit import fit_link, weighted_median

pytestmark = pytest.mark.unit

SIZES = st.lists(st.integers(1, 1 << 30), min_size=2, max_size=32)


def test_nothing_comes_of_no_sample():
    assert fit_link(()) is None


@given(sizes=SIZES, alpha_s=st.floats(1e-6, 1e-2), beta=st.floats(1e6, 1e11))
def test_latency_and_bandwidth_of_a_steady_link_are_found(sizes, alpha_s, beta):
    assume(max(sizes) > 2 * min(sizes))
    # What is to be told apart has to be larger than a float's rounding.
    assume((max(sizes) - min(sizes)) / beta > 1e-6 * alpha_s)
    model = fit_link([(n, alpha_s + n / beta) for n in sizes])
    assert (model.alpha_s, model.beta_bytes_per_s) == pytest.approx((alpha_s, beta), rel=1e-3)
    assert model.residual < 1e-6


def test_a_few_stalls_do_not_move_the_estimate():
    samples = [(n << 20, 1e-4 + (n << 20) / 1e9) for n in range(1, 21)]
    stalled = [(n, t + 5.0) if index % 7 == 0 else (n, t) for index, (n, t) in enumerate(samples)]
    model = fit_link(stalled)
    assert model.beta_bytes_per_s == pytest.approx(1e9, rel=0.1)
    assert model.alpha_s < 0.01


def test_transfers_of_one_size_are_all_bandwidth():
    model = fit_link([(1 << 20, 1e-3)] * 5)
    assert (model.alpha_s, model.beta_bytes_per_s) == (0.0, pytest.approx((1 << 20) / 1e-3))


@pytest.mark.parametrize("beta", [12.5e6, 125e6, 12.5e9])
@pytest.mark.parametrize("alpha_s", [5e-6, 2e-4, 2e-3])
def test_a_noisy_probe_of_all_sizes_finds_both(beta, alpha_s, rng):
    sizes = [4096 << power for power in range(15) for _ in range(4)]
    noise = [0.05 * rng.standard_normal() + 0.3 * (rng.random() < 0.1) for _ in sizes]
    model = fit_link([(n, (alpha_s + n / beta) * (1 + abs(e))) for n, e in zip(sizes, noise, strict=True)])
    assert model.beta_bytes_per_s == pytest.approx(beta, rel=0.1)
    assert model.alpha_s == pytest.approx(alpha_s, rel=0.2, abs=1e-3)
    assert model.residual < 0.1


def test_a_sample_counts_by_its_weight():
    assert weighted_median([(1.0, 1.0), (2.0, 1.0), (9.0, 3.0)]) == 9.0
    assert weighted_median([(1.0, 1.0), (2.0, 1.0)]) == 1.5
    slow, fast = [(n << 20, (n << 20) / 1e6) for n in range(1, 5)], [(n << 20, (n << 20) / 1e9) for n in range(1, 5)]
    model = fit_link(slow + fast, [1.0] * 4 + [0.1] * 4)
    assert model.beta_bytes_per_s == pytest.approx(1e6, rel=0.1)
