import pytest

from cluster.topology.link_estimate import EstimateConfig, LinkEstimate, LinkState
from cluster.topology.link_model import LinkModel, TransferSample

pytestmark = pytest.mark.unit

PROBED = LinkModel(alpha_s=2e-4, beta_bytes_per_s=1e9)
CONFIG = EstimateConfig()


class Traffic:
    """Transfers over a link that behaves as told, one each `every_s`."""

    def __init__(self, rng, *, sizes=(1 << 20, 4 << 20, 16 << 20), every_s=0.1, noise=0.05, kind=None):
        self.estimate = LinkEstimate(CONFIG)
        self._rng, self._sizes, self._every_s, self._noise, self._kind = rng, sizes, every_s, noise, kind
        self.now_s = 100.0

    def send(self, model, num_transfers, *, share=1.0):
        for _ in range(num_transfers):
            self.now_s += self._every_s
            num_bytes = int(self._rng.choice(self._sizes))
            noise = 1 + self._noise * abs(self._rng.standard_normal())
            seconds = (model.alpha_s + num_bytes / model.beta_bytes_per_s / share) * noise
            sample = TransferSample(num_bytes=num_bytes, seconds=seconds, share=share)
            self.estimate.transferred([sample], self.now_s, self._kind)
        return self.estimate


def scaled(model, *, alpha=1.0, beta=1.0):
    return LinkModel(alpha_s=model.alpha_s * alpha, beta_bytes_per_s=model.beta_bytes_per_s * beta)


def test_nothing_is_believed_of_a_link_that_was_never_used():
    estimate = LinkEstimate()
    assert (estimate.model, estimate.state, estimate.age_s(5.0)) == (None, LinkState.UNKNOWN, None)
    assert estimate.is_stale(0.0)


def test_transfers_alone_make_an_estimate(rng):
    estimate = Traffic(rng).send(PROBED, 20)
    assert estimate.model.beta_bytes_per_s == pytest.approx(1e9, rel=0.1)
    assert estimate.state is LinkState.GOOD
    assert estimate.num_samples == 20


@pytest.mark.parametrize("sizes", [(1 << 20,), (4096,), (64 << 20,), (4096, 1 << 20, 64 << 20)])
def test_traffic_like_the_probe_leaves_the_estimate_where_it_was(rng, sizes):
    traffic = Traffic(rng, sizes=sizes)
    traffic.estimate.probed(PROBED, 100.0)
    model = traffic.send(PROBED, 200).model
    for num_bytes in (4096, 1 << 20, 64 << 20):
        assert model.seconds(num_bytes) == pytest.approx(PROBED.seconds(num_bytes), rel=0.2)
    assert traffic.estimate.state is LinkState.GOOD


def test_a_stall_right_after_a_probe_refutes_nothing(rng):
    traffic = Traffic(rng, noise=0.0)
    traffic.estimate.probed(PROBED, 100.0)
    traffic.send(scaled(PROBED, alpha=100.0, beta=0.05), CONFIG.min_samples - 1)
    assert traffic.estimate.model == PROBED
    assert traffic.estimate.age_s(traffic.now_s) == 0.0
    traffic.send(scaled(PROBED, alpha=100.0, beta=0.05), 1)
    assert traffic.estimate.state is LinkState.DEGRADED


def test_small_transfers_held_up_now_and_then_make_no_link_degraded(rng):
    probed = LinkModel(alpha_s=2e-4, beta_bytes_per_s=62.5e6)
    for _ in range(50):
        estimate = LinkEstimate()
        estimate.probed(probed, 0.0)
        for number in range(120):
            num_bytes = 48 << 10 if number % 4 == 3 else 384 << 10
            seconds = probed.seconds(num_bytes) + rng.exponential(1e-3)
            estimate.transferred([TransferSample(num_bytes=num_bytes, seconds=seconds)], number * 0.2)
        assert estimate.probed(probed, 24.0) is LinkState.GOOD


def test_small_transfers_that_wait_for_a_processor_make_no_state_flap(rng):
    probed = LinkModel(alpha_s=3e-4, beta_bytes_per_s=9e8)
    changes = 0
    for _ in range(20):
        estimate = LinkEstimate()
        state = estimate.probed(probed, 0.0)
        for number in range(250):
            seconds = probed.seconds(150 << 10) + rng.exponential(1.5e-3)
            before, state = (
                state,
                estimate.transferred([TransferSample(num_bytes=150 << 10, seconds=seconds)], number * 0.1),
            )
            changes += state is not before
    assert changes / 20 < 3


@pytest.mark.parametrize("sizes", [(1 << 20,), (8 << 20,), (1 << 20, 4 << 20, 16 << 20), (4096, 64 << 20)])
@pytest.mark.parametrize("slower", [{"beta": 0.3}, {"beta": 0.05}, {"alpha": 300.0}, {"alpha": 100.0, "beta": 0.1}])
def test_a_slowed_link_is_noticed_within_ten_transfers(rng, sizes, slower):
    traffic = Traffic(rng, sizes=sizes)
    traffic.estimate.probed(PROBED, 100.0)
    traffic.send(PROBED, 40)
    slowed = scaled(PROBED, **slower)
    estimate = traffic.send(slowed, 10)
    assert estimate.state is LinkState.DEGRADED
    for num_bytes in sizes:
        assert estimate.model.seconds(num_bytes) == pytest.approx(slowed.seconds(num_bytes), rel=0.35)


def test_it_is_taken_back_when_transfers_are_fast_again(rng):
    traffic = Traffic(rng)
    traffic.estimate.probed(PROBED, 100.0)
    traffic.send(scaled(PROBED, beta=0.1), 20)
    assert traffic.estimate.state is LinkState.DEGRADED
    assert traffic.send(PROBED, 10).state is LinkState.GOOD


def test_it_is_taken_back_by_a_probe_that_it_asks_for_soon(rng):
    traffic = Traffic(rng)
    traffic.estimate.probed(PROBED, 100.0)
    estimate = traffic.send(scaled(PROBED, beta=0.1), 20)
    assert not estimate.is_stale(traffic.now_s + 1.0)
    assert estimate.is_stale(traffic.now_s + CONFIG.degraded_stale_after_s)
    assert estimate.probed(PROBED, traffic.now_s + 11.0) is LinkState.GOOD
    assert not estimate.is_stale(traffic.now_s + 11.0 + CONFIG.degraded_stale_after_s)
    assert estimate.is_stale(traffic.now_s + 11.0 + CONFIG.stale_after_s)


def test_between_the_two_thresholds_the_state_stays_what_it_was(rng):
    between = scaled(PROBED, beta=0.6)
    traffic = Traffic(rng)
    traffic.estimate.probed(PROBED, 100.0)
    assert traffic.send(between, 40).state is LinkState.GOOD
    traffic.send(scaled(PROBED, beta=0.1), 20)
    assert traffic.send(between, 40).state is LinkState.DEGRADED


def test_a_few_stalls_degrade_nothing(rng):
    traffic = Traffic(rng)
    traffic.estimate.probed(PROBED, 100.0)
    for _ in range(30):
        traffic.send(PROBED, 4)
        assert traffic.send(LinkModel(alpha_s=3.0, beta_bytes_per_s=1e9), 1).state is LinkState.GOOD
    assert traffic.estimate.model.beta_bytes_per_s == pytest.approx(1e9, rel=0.15)


def test_what_was_shared_is_not_held_against_the_link(rng):
    traffic = Traffic(rng)
    traffic.estimate.probed(PROBED, 100.0)
    estimate = traffic.send(PROBED, 40, share=0.25)
    assert estimate.state is LinkState.GOOD
    assert estimate.model.beta_bytes_per_s == pytest.approx(1e9, rel=0.15)


def test_a_link_far_below_its_kind_is_degraded_from_the_start(rng):
    slow = scaled(PROBED, beta=0.3)
    estimate = LinkEstimate()
    assert estimate.probed(slow, 0.0, kind=PROBED) is LinkState.DEGRADED
    assert LinkEstimate().probed(slow, 0.0, kind=slow) is LinkState.GOOD


def test_a_link_that_has_been_upgraded_is_held_to_what_it_gives_now(rng):
    traffic = Traffic(rng)
    traffic.estimate.probed(scaled(PROBED, beta=0.1), 100.0)
    assert traffic.send(PROBED, 20).state is LinkState.GOOD
    assert traffic.send(scaled(PROBED, beta=0.1), 10).state is LinkState.DEGRADED


def test_small_transfers_say_nothing_of_the_bandwidth(rng):
    traffic = Traffic(rng, sizes=(4096,))
    traffic.estimate.probed(PROBED, 100.0)
    model = traffic.send(scaled(PROBED, alpha=3.0), 30).model
    assert model.alpha_s == pytest.approx(6e-4, rel=0.15)
    assert model.beta_bytes_per_s == pytest.approx(1e9, rel=0.1)


def test_a_probe_that_was_too_fast_makes_no_link_degraded_for_ever():
    estimate = LinkEstimate()
    estimate.probed(scaled(PROBED, beta=2.5), 0.0)
    states = [estimate.probed(PROBED, step * 30.0) for step in range(1, 61)]
    assert states[-1] is LinkState.GOOD


def test_one_fast_probe_of_a_link_that_is_known_is_no_new_usual():
    estimate = LinkEstimate()
    for step in range(4):
        estimate.probed(PROBED, step * 60.0)
    estimate.probed(scaled(PROBED, beta=2.5), 240.0)
    assert estimate.probed(PROBED, 300.0) is LinkState.GOOD
    for step in range(2):
        estimate.probed(scaled(PROBED, beta=2.5), 360.0 + step * 60.0)
    assert estimate.probed(PROBED, 480.0) is LinkState.DEGRADED


def test_a_few_fast_transfers_are_no_new_usual(rng):
    traffic = Traffic(rng, sizes=(8 << 20,))
    traffic.estimate.probed(PROBED, 100.0)
    traffic.send(PROBED, 100)
    traffic.send(scaled(PROBED, beta=2.5), 4)
    for _ in range(20):
        assert traffic.send(PROBED, 1).state is LinkState.GOOD


@pytest.mark.parametrize("at_once", [2, 5, 10])
def test_transfers_that_are_told_of_together_count_as_many_and_are_fitted_once(monkeypatch, at_once):
    fits = []
    monkeypatch.setattr(LinkEstimate, "_fit", lambda self, fit=LinkEstimate._fit: fits.append(self) or fit(self))
    estimate = LinkEstimate()
    estimate.probed(PROBED, 0.0)
    for beta, expected in ((0.1, LinkState.DEGRADED), (1.0, LinkState.GOOD)):
        model = scaled(PROBED, beta=beta)
        for step in range(0, 10, at_once):
            samples = [TransferSample(num_bytes=8 << 20, seconds=model.seconds(8 << 20))] * at_once
            estimate.transferred(samples, 1.0 + step)
        assert estimate.state is expected
    assert estimate.num_samples == 20
    assert len(fits) <= 20 / at_once


def test_a_slow_link_is_degraded_for_minutes_before_it_is_the_usual():
    estimate = LinkEstimate()
    estimate.probed(PROBED, 0.0)
    slow = scaled(PROBED, beta=0.1)
    states = [estimate.probed(slow, 3600.0 + step * 30.0) for step in range(1, 121)]
    assert set(states[:40]) == {LinkState.DEGRADED}
    assert states[-1] is LinkState.GOOD
