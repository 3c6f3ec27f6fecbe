"""What status and metrics say of links."""

import threading

import pytest

from cluster.handshake import draw_secret
from cluster.topology.topology import Node
from router import metrics
from router.config import RouterConfig
from router.metrics import Metrics
from router.router import Router
from tests.unit.router.fake_instance import FakeInstance
from tests.unit.router_links.fake_nodes import SLOW, FakeNodes
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit


@pytest.fixture
async def router() -> Router:
    """Instances on a and b, whose links were surveyed, and on c."""
    topology = make_topology(
        Node(name="a", group="rack0", egress_bytes_per_s=5e8), Node(name="b"), alpha_s=1e-3, beta=1e8
    )
    names = {"name": "r", "deployment": "test", "model_name": "tiny", "model_path": ""}
    made = Router(RouterConfig(**names, secret=draw_secret(), term=1, topology=topology))
    for node in "abc":
        FakeInstance(made, f"{node}0", node=node, block_bytes=16_000)
    return made


async def test_status_has_a_row_for_every_link_and_every_node(router: Router) -> None:
    status = router.status()
    rows = {(row.source_node, row.target_node): row for row in status.node_links}
    assert set(rows) == {(a, b) for a in "abc" for b in "abc" if a != b}
    assert (rows["a", "b"].state, rows["a", "b"].beta_bytes_per_s, rows["a", "b"].alpha_s) == ("good", 1e8, 1e-3)
    assert (rows["a", "c"].state, rows["a", "c"].beta_bytes_per_s) == ("unknown", 0.0)
    nodes = [(node.node, node.group, list(node.instances), node.egress_bytes_per_s) for node in status.nodes]
    assert nodes == [("a", "rack0", ["a0"], 5e8), ("b", "", ["b0"], 0.0), ("c", "", ["c0"], 0.0)]
    assert [instance.node for instance in status.instances] == ["a", "b", "c"]


async def test_dispatch_asks_what_is_believed_of_the_links(router: Router) -> None:
    here, there = (connection.holder for connection in list(router.instances.connections.values())[:2])
    assert router.links.forecast.transfer_s(here, there, 1600) == pytest.approx(1e-3 + 1.6e6 / 1e8)
    assert router._scheduler.forecast is router.links.forecast


async def test_metrics_have_gauges_of_every_link_and_of_what_nodes_give(router: Router) -> None:
    lines = Metrics("tiny", router.status).render().decode().splitlines()
    ends = 'source_node="a",target_node="b",transport=""'
    assert f"baton:node_link_beta_bytes_per_second{{{ends}}} 1e+08" in lines
    assert f"baton:node_link_alpha_seconds{{{ends}}} 0.001" in lines
    assert any(line.startswith(f"baton:node_link_age_seconds{{{ends}}}") for line in lines)
    assert 'baton:node_link_state{source_node="a",state="good",target_node="b",transport=""} 1.0' in lines
    assert 'baton:node_link_state{source_node="a",state="unknown",target_node="c",transport=""} 1.0' in lines
    assert 'baton:node_egress_bytes_per_second{node="a"} 5e+08' in lines
    assert not any(line.startswith("baton:node_ingress_bytes_per_second{") for line in lines)
    assert not any(line.startswith("baton:node_link_alpha") and 'target_node="c"' in line for line in lines)


def test_with_many_nodes_only_links_that_are_not_as_usual_are_named_and_the_others_counted() -> None:
    names = [f"n{at:02}" for at in range(33)]
    nodes = FakeNodes(*names, topology=make_topology(*names, alpha_s=1e-4, beta=1e8))
    nodes.act(1.0)
    assert nodes.links.shown_rows() == []
    assert {(row.num_known_links, row.median_bytes_per_s) for row in nodes.links.node_rows()} == {(32, 1e8)}
    nodes.network["n00", "n01"] = SLOW
    for _ in range(10):
        nodes.transfer(nodes.holders[0], nodes.holders[1])
        nodes.act()
    assert [(row.pair, row.state) for row in nodes.links.shown_rows()] == [(("n00", "n01"), "degraded")]
    assert len(nodes.links.link_rows()) == 33 * 32


async def test_the_status_is_taken_in_the_event_loop_and_the_text_made_beside_it(
    router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: dict[str, int] = {}
    latest = metrics.generate_latest

    def generate_latest(registry: object) -> bytes:
        threads["text"] = threading.get_ident()
        return latest(registry)  # type: ignore[arg-type]

    def status() -> object:
        threads["status"] = threading.get_ident()
        return router.status()

    monkeypatch.setattr(metrics, "generate_latest", generate_latest)
    text = await Metrics("tiny", status).render_aside()  # type: ignore[arg-type]
    assert threads["status"] == threading.get_ident() != threads["text"]
    assert b"baton:node_link_state" in text
    assert b"vllm:prompt_tokens" in text
