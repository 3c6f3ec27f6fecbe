"""Nodes without an instance measure what is between them, and what each can send in all."""

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from cluster import failpoints
from cluster.links.config import LinkConfig
from cluster.links.errors import LinkError
from cluster.links.probe.node import ProbeNode, ProbeTarget
from cluster.messages import Holder
from cluster.secret import SECRET_BYTES, ClusterSecret
from cluster.topology.fit import fit_link

from .factories import PATIENCE_S, SECRET

pytestmark = pytest.mark.unit


@pytest.fixture
def make_probe_node() -> Iterator[Callable[..., ProbeNode]]:
    nodes: list[ProbeNode] = []

    def make(name: str, secret: ClusterSecret = SECRET, **config: object) -> ProbeNode:
        nodes.append(ProbeNode(name, secret=secret, config=LinkConfig(**config), region_bytes=4 << 20))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


def nobody() -> ProbeTarget:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return ProbeTarget(holder=Holder("nobody", 1), link_address=f"127.0.0.1:{server.getsockname()[1]}")


@pytest.mark.parametrize("checksum", [True, False])
def test_a_link_is_measured_both_ways(make_probe_node, transport, checksum):
    a, b = (make_probe_node(name, transport=transport, checksum=checksum) for name in "ab")
    for source, target in ((a, b.target), (b, a.target)):
        probed = source.probe(target, 0.3)
        assert (probed.target, probed.transport, probed.error) == (target.holder, transport, "")
        assert all(sample.target == target.holder and sample.transport == transport for sample in probed.samples)
        ends = [sample.ended_s for sample in probed.samples]
        assert ends == sorted(ends)
        model = fit_link([(sample.num_bytes, sample.seconds) for sample in probed.samples])
        assert model is not None
        assert model.beta_bytes_per_s > 0.0


def test_a_target_that_cannot_be_reached_is_an_answer(make_probe_node):
    probed = make_probe_node("a").probe(nobody(), 0.3)
    assert "Connection refused" in probed.error
    assert (probed.transport, probed.samples) == ("", ())


def test_a_target_of_another_cluster_is_an_answer(make_probe_node):
    stranger = make_probe_node("b", secret=ClusterSecret(b"x" * SECRET_BYTES))
    assert "not to be trusted" in make_probe_node("a").probe(stranger.target, 0.3).error


def test_a_link_that_breaks_within_a_probe_gives_what_there_was(make_probe_node):
    a, b = (make_probe_node(name, transport="tcp", max_connections=1) for name in "ab")
    num_batches = 0

    def cut_later(batch: object) -> None:
        nonlocal num_batches
        num_batches += 1
        if num_batches == 4:
            failpoints.cut()

    with failpoints.armed("links.source.batch", cut_later):
        probed = a.probe(b.target, 5.0)
    assert "cut by a failpoint" in probed.error
    assert len(probed.samples) == 2  # the first transfer warms up


def test_connections_that_cannot_be_had_are_no_failure(make_probe_node, monkeypatch):
    monkeypatch.setattr("cluster.links.lanes.MAX_CONNECTIONS", 1)
    a, b = (make_probe_node(name, transport="tcp") for name in "ab")
    probed = a.probe(b.target, 1.0)
    assert (probed.error, probed.num_connections) == ("", 1)
    assert probed.samples


def test_probes_of_several_links_at_once_all_end(make_probe_node):
    nodes = [make_probe_node(name) for name in "abc"]
    errors: list[str] = []

    def probe(source: ProbeNode, target: ProbeNode) -> None:
        errors.append(source.probe(target.target, 0.1).error)

    pairs = [(source, target) for source in nodes for target in nodes if source is not target]
    threads = [threading.Thread(target=probe, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE_S)
    assert errors == [""] * len(pairs)


@pytest.fixture
def patient(monkeypatch):
    """However busy this machine is, something arrives in that time."""
    monkeypatch.setattr("cluster.links.probe.flood._PATIENCE_S", PATIENCE_S)


def test_what_a_node_sends_to_several_is_counted_together(make_probe_node, transport, patient):
    a, b, c = (make_probe_node(name, transport=transport) for name in "abc")
    assert a.flood([b.target, c.target], 0.01) > 0.0


def test_a_flood_of_which_a_part_is_not_reached_says_nothing_of_the_node(make_probe_node, patient):
    a, b = make_probe_node("a"), make_probe_node("b")
    with pytest.raises(LinkError, match="Connection refused"):
        a.flood([nobody(), b.target], 0.01)


def test_a_flood_that_reaches_nobody_says_so(make_probe_node):
    with pytest.raises(LinkError, match="Connection refused"):
        make_probe_node("a").flood([nobody()], 0.3)
