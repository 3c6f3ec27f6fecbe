"""What probes say of links whose rate and delay are known.

Or what a plain flow finds, where this machine cannot give what was set.
"""

from collections.abc import Callable, Iterator

import pytest

from cluster.messages import Probed
from cluster.topology.fit import fit_link
from cluster.topology.link_model import LinkModel
from tests.netns import delay_line
from tests.netns.hosts import Host, why_not
from tests.netns.network import SWITCH, mesh, star
from tests.netns.plain_flow import NUM_ROUND_TRIPS, PlainFlow
from tests.netns.probe_process import ProbeProcess
from tests.netns.tries import around, assert_medians

pytestmark = pytest.mark.netns

GIGABIT_BYTES_PER_S = 125e6
FLOOD_S = 0.5


@pytest.fixture
def on_hosts() -> Iterator[Callable[..., list[ProbeProcess]]]:
    if reason := why_not():
        pytest.skip(reason)
    processes: list[ProbeProcess] = []

    def make(hosts: list[Host]) -> list[ProbeProcess]:
        processes.extend(ProbeProcess(host) for host in hosts)
        return processes

    yield make
    for process in processes:
        process.close()


def model_of(probed: Probed) -> LinkModel:
    assert not probed.error
    model = fit_link([(sample.num_bytes, sample.seconds) for sample in probed.samples])
    assert model is not None
    return model


def assert_found(source: ProbeProcess, target: ProbeProcess, beta_bytes_per_s: float, round_trip_s: float) -> None:
    alpha_s = NUM_ROUND_TRIPS * round_trip_s
    with PlainFlow(source.host, target.host, beta_bytes_per_s, round_trip_s) as plain:

        def probe() -> tuple[float, float]:
            plain.measure()
            model = model_of(source.probe(target))
            return plain.forgive_latency(model.alpha_s), plain.forgive_rate(model.beta_bytes_per_s)

        print(f"{source.host.name} -> {target.host.name}")
        assert_medians(
            probe,
            around("alpha, s", alpha_s, 1e-3 + 0.2 * alpha_s),
            around("beta, bytes/s", beta_bytes_per_s, 0.1 * beta_bytes_per_s),
        )


def test_a_probe_finds_the_rate_and_the_delay_that_were_set(on_hosts) -> None:
    if reason := delay_line.why_not():
        pytest.skip(reason)
    rates = {("a", "b"): GIGABIT_BYTES_PER_S, ("b", "a"): GIGABIT_BYTES_PER_S / 2}
    rates |= {("a", "c"): GIGABIT_BYTES_PER_S / 10, ("b", "c"): GIGABIT_BYTES_PER_S / 4}
    with mesh(3, rates=rates, delays_s={("a", "b"): 1e-3, ("b", "c"): 0.25e-3}) as network:
        a, b, c = on_hosts(network.hosts)
        assert_found(a, b, rates["a", "b"], 2e-3)
        assert_found(b, a, rates["b", "a"], 2e-3)
        assert_found(b, c, rates["b", "c"], 0.5e-3)
        assert_found(a, c, rates["a", "c"], 0.0)


def test_a_host_behind_a_cut_cable_is_a_failed_probe(on_hosts) -> None:
    with mesh(2) as network:
        a, b = on_hosts(network.hosts)
        network.cut("a", "b")
        assert a.probe(b).error
        network.mend("a", "b")
        assert not a.probe(b).error


def test_what_a_host_can_send_and_receive_in_all(on_hosts) -> None:
    with star(3, bytes_per_s=GIGABIT_BYTES_PER_S) as network:
        network.shape("a", SWITCH, GIGABIT_BYTES_PER_S / 2)
        network.shape(SWITCH, "b", GIGABIT_BYTES_PER_S / 4)
        a, b, c = on_hosts(network.hosts)
        assert_flood([a], [b, c], GIGABIT_BYTES_PER_S / 2)
        assert_flood([a, c], [b], GIGABIT_BYTES_PER_S / 4)


def assert_flood(sources: list[ProbeProcess], targets: list[ProbeProcess], bytes_per_s: float) -> None:
    with PlainFlow(sources[0].host, targets[-1].host, bytes_per_s) as plain:

        def flood() -> list[float]:
            plain.measure()
            for source in sources:
                source.begin_flood(targets, FLOOD_S)
            return [plain.forgive_rate(sum(source.answer() for source in sources))]

        assert_medians(flood, around("all together, bytes/s", bytes_per_s, 0.1 * bytes_per_s))
