"""What KV gets of a link: at least nine tenths, whatever its rate and its delay."""

import time
from collections.abc import Callable, Iterator

import pytest

from tests.integration.link_processes import NUM_BLOCKS, RECORD_BYTES, LinkProcess
from tests.netns import delay_line
from tests.netns.hosts import Host, why_not
from tests.netns.network import SWITCH, mesh, star

pytestmark = pytest.mark.netns

GIGABIT_BYTES_PER_S = 125e6
BLOCKS = tuple(range(NUM_BLOCKS))
NUM_BYTES = NUM_BLOCKS * RECORD_BYTES
MAX_TRANSFERS = 20


class Flow:
    """All blocks of one process, again and again, into all blocks of another."""

    def __init__(self, source: Host, target: Host) -> None:
        self._source = LinkProcess("prefill-0", on=source, transfer_timeout_s=60.0)
        self._target = LinkProcess("decode-0", on=target, transfer_timeout_s=60.0)
        self._reservation = 0

    def start(self) -> None:
        self._reservation += 1
        self._target.call("reserve", "prefill-0", self._reservation, BLOCKS)
        self._source.send(self._target, BLOCKS, self._reservation)

    def wait(self) -> None:
        assert self._source.event() == ("sent", self._reservation)
        assert self._target.event()[:2] == ("arrived", self._reservation)
        assert self._target.call("release", self._reservation)

    def close(self) -> None:
        self._source.close()
        self._target.close()


def best_bytes_per_s(*flows: Flow, enough: float) -> float:
    """Of all of them together, each with one transfer under way, after one to warm up.

    A shaped link gives no more than it should, but a machine that computes something else gives less at times: so the
    best one counts, and the first that is enough.
    """
    rates = [0.0]
    for _ in range(1 + MAX_TRANSFERS):
        begin_s = time.monotonic()
        for flow in flows:
            flow.start()
        for flow in flows:
            flow.wait()
        rates.append(len(flows) * NUM_BYTES / (time.monotonic() - begin_s))
        if len(rates) > 2 and rates[-1] >= enough:
            break
    print(f"{enough / 1e6:.1f} MB/s are enough, there were", *(f"{rate / 1e6:.1f}" for rate in rates[1:]))
    return max(rates[2:])


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


def assert_gets(bytes_per_s: float, *flows: Flow) -> None:
    assert 0.9 * bytes_per_s <= best_bytes_per_s(*flows, enough=0.9 * bytes_per_s) <= 1.05 * bytes_per_s


@pytest.mark.parametrize("gigabits", [1.0, 0.25])
def test_a_transfer_gets_nine_tenths_of_its_link(make_flow, gigabits) -> None:
    rate = gigabits * GIGABIT_BYTES_PER_S
    with mesh(2, bytes_per_s=rate) as network:
        assert_gets(rate, make_flow(*network.hosts))


def test_and_where_a_round_trip_takes_two_milliseconds(make_flow) -> None:
    if reason := delay_line.why_not():
        pytest.skip(reason)
    with mesh(2, bytes_per_s=GIGABIT_BYTES_PER_S, delays_s={("a", "b"): 1e-3}) as network:
        assert_gets(GIGABIT_BYTES_PER_S, make_flow(*network.hosts))


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
