"""What a flood makes of links of known speed: transfers take as long as it says here, and no time passes."""

import threading

import pytest

from cluster.links.errors import LinkError
from cluster.links.probe import flood as flood_module
from cluster.links.probe.flood import flood
from cluster.links.probe.session import ProbeTarget
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.messages import Holder
from cluster.topology.link_model import LinkModel

pytestmark = pytest.mark.unit

START_S = 100.0


class Links:
    """To each target at its own speed; `known`: they have been measured before."""

    def __init__(self, models: dict[str, LinkModel], *, known: bool) -> None:
        self._models = models
        self._known = known
        self._under_way: list[tuple[float, float, ProbeTransfer]] = []
        self._now_s = START_S
        self.sizes: dict[str, list[int]] = {name: [] for name in models}

    def model(self, receiver: Holder) -> LinkModel | None:
        return self._models[receiver.instance] if self._known else None

    def num_connections(self, receiver: Holder) -> int:
        return 1

    def probe(self, link_address: str, receiver: Holder, probe: ProbeTransfer) -> None:
        self.sizes[receiver.instance].append(probe.num_bytes)
        seconds = self._models[receiver.instance].seconds(probe.num_bytes)
        self._under_way.append((self._now_s + seconds, seconds, probe))
        if self._now_s == START_S and len(self._under_way) == len(self._models):
            threading.Thread(target=self._run).start()

    def _run(self) -> None:
        while self._under_way:
            first = min(self._under_way, key=lambda each: each[0])
            self._under_way.remove(first)
            self._now_s, seconds, probe = first
            if probe.give_up_at_s <= self._now_s - seconds:
                probe.on_end(ProbeOutcome(reason="too late", is_late=True))
            else:
                probe.on_end(ProbeOutcome(seconds=seconds, ended_s=self._now_s))


def flooded(links: Links, seconds: float = 0.3) -> float:
    return flood(links, [ProbeTarget(holder=Holder(name, 1), link_address="") for name in links.sizes], seconds)


@pytest.fixture(autouse=True)
def clock(monkeypatch):
    monkeypatch.setattr(flood_module.time, "monotonic", lambda: START_S)


def model(alpha_s: float, beta_bytes_per_s: float) -> LinkModel:
    return LinkModel(alpha_s=alpha_s, beta_bytes_per_s=beta_bytes_per_s)


@pytest.mark.parametrize("known", [True, False])
def test_a_link_that_is_slow_for_the_time_counts_with_the_others(known):
    links = Links({"slow": model(1e-3, 50e3), "fast": model(1e-4, 400e3)}, known=known)
    assert flooded(links) == pytest.approx(450e3, rel=0.1)


def test_the_latency_of_a_known_link_looks_like_no_limit():
    links = Links({"far": model(0.05, 20e6), "farther": model(0.1, 20e6)}, known=True)
    assert flooded(links, 1.0) >= 0.9 * 40e6


def test_a_link_over_which_nothing_comes_in_time_leaves_nothing_to_say():
    links = Links({"still": model(60.0, 1e6), "fast": model(1e-4, 50e6)}, known=False)
    with pytest.raises(LinkError, match="nothing arrived in that time"):
        flooded(links)
