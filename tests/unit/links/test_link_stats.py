import pytest

from cluster.links.link_stats import NUM_SAMPLES, LinkStats

pytestmark = pytest.mark.unit


def test_nothing_is_known_before_the_first_transfer():
    status = LinkStats(source="a", target="b", source_rank=0, target_rank=0).status()
    assert (status.alpha_s, status.beta_bytes_per_s) == (0.0, 0.0)


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
