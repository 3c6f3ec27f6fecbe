"""What KV gets of a link: at least nine tenths, whatever its rate and its delay.

Of what a plain flow gets, where this machine cannot give what was set.
"""

from collections.abc import Callable, Iterator

import pytest

from tests.netns import delay_line
from tests.netns.hosts import Host, why_not
from tests.netns.kv_flow import Flow, bytes_per_s
from tests.netns.network import SWITCH, mesh, star
from tests.netns.plain_flow import PlainFlow
from tests.netns.tries import Range, assert_medians

pytestmark = pytest.mark.netns

GIGABIT_BYTES_PER_S = 125e6


@pytest.fixture
def make_flow() -> Iterator[Callable[[Host, Host], Flow]]:
    if reason := why_not():
        pytest.skip(reason)
    flows: list[Flow] = []

    def make(source: Host, target: Host) -> Flow:
        flows.append(Flow(source, target))
        return flows[-1]

    yield make
    for flow in flows:
        flow.close()


def assert_gets(rate: float, *flows: Flow, round_trip_s: float = 0.0) -> None:
    """Bytes/s, of all together, after one transfer each to warm up."""
    bytes_per_s(*flows)
    with PlainFlow(*flows[0].hosts, rate, round_trip_s) as plain:

        def transfer() -> list[float]:
            plain.measure()
            return [plain.forgive_rate(bytes_per_s(*flows))]

        assert_medians(transfer, Range(what="KV, bytes/s", lowest=0.9 * rate, highest=1.05 * rate))


@pytest.mark.parametrize("gigabits", [1.0, 0.25])
def test_a_transfer_gets_nine_tenths_of_its_link(make_flow, gigabits) -> None:
    rate = gigabits * GIGABIT_BYTES_PER_S
    with mesh(2, bytes_per_s=rate) as network:
        assert_gets(rate, make_flow(*network.hosts))


def test_and_where_a_round_trip_takes_two_milliseconds(make_flow) -> None:
    if reason := delay_line.why_not():
        pytest.skip(reason)
    with mesh(2, bytes_per_s=GIGABIT_BYTES_PER_S, delays_s={("a", "b"): 1e-3}) as network:
        assert_gets(GIGABIT_BYTES_PER_S, make_flow(*network.hosts), round_trip_s=2e-3)


def test_a_link_that_is_slowed_and_made_fast_again_under_way(make_flow) -> None:
    with mesh(2, bytes_per_s=GIGABIT_BYTES_PER_S) as network:
        flow = make_flow(*network.hosts)
        for part in (1.0, 0.25, 1.0):
            network.shape("a", "b", part * GIGABIT_BYTES_PER_S)
            assert_gets(part * GIGABIT_BYTES_PER_S, flow)


def test_two_flows_out_of_one_host_or_into_one_get_its_cable_together(make_flow) -> None:
    with star(3, bytes_per_s=GIGABIT_BYTES_PER_S) as network:
        a, b, c = network.hosts
        network.shape("a", SWITCH, GIGABIT_BYTES_PER_S / 2)
        assert_gets(GIGABIT_BYTES_PER_S / 2, make_flow(a, b), make_flow(a, c))
        network.shape("a", SWITCH, GIGABIT_BYTES_PER_S)
        network.shape(SWITCH, "b", GIGABIT_BYTES_PER_S / 2)
        assert_gets(GIGABIT_BYTES_PER_S / 2, make_flow(a, b), make_flow(c, b))
