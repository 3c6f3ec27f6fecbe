"""`baton probe` and what `baton status` shows of links, against a router that says what the test makes it say."""

import json

import pytest

from cluster.pb import baton_pb2
from cluster.topology.read import read_topology
from deploy.live_topology import progress_of, topology_of
from deploy.probing.survey import Survey, SurveyedLink, Unreachable
from tests.unit.topology.factories import make_topology

pytestmark = pytest.mark.unit

PNG = b"\x89PNG\r\n\x1a\n"


def link(source, target, beta=1.25e8, **fields):
    fields = {"transport": "tcp", "state": "good", "num_samples": 12, "age_s": 3.0, "num_connections": 2, **fields}
    return baton_pb2.NodeLinkStatus(
        source_node=source, target_node=target, alpha_s=1e-3, beta_bytes_per_s=beta, residual=0.02, **fields
    )


def progress(*links, nodes="abc", **fields):
    rows = [baton_pb2.NodeStatus(node=node, instances=[f"{node}-0"]) for node in nodes]
    return baton_pb2.ProbeProgress(num_links=len(links), num_done=len(links), done=True, links=links, nodes=rows)


def all_links(nodes="abc", **changes):
    return [changes.get(a + b) or link(a, b) for a in nodes for b in nodes if a != b]


@pytest.fixture
def probed(router):
    router.probe = [
        baton_pb2.ProbeProgress(num_links=6),
        baton_pb2.ProbeProgress(num_links=6, num_done=4),
        baton_pb2.ProbeProgress(num_links=6, num_done=4),
        progress(*all_links(ab=link("a", "b", 1e7, state="degraded"), ca=link("c", "a", transport="shm"))),
    ]
    return router


def test_probe_shows_its_progress_every_link_the_matrix_and_what_is_wrong(run, probed):
    code, out, err = run("probe")
    assert code == 0
    assert err.splitlines() == ["0 of 6 links measured", "4 of 6 links measured", "6 of 6 links measured"]
    rows = [line for line in out.splitlines() if "→" in line]
    assert all(word in rows[0] for word in ("a → b", "tcp", "1 ms", "10 MB/s", "2%", "12", "3 s", "degraded"))
    assert len([row for row in rows if "good" in row]) == 5
    assert any("shm" in row for row in rows if "c → a" in row)
    [of_a] = [line for line in out.splitlines() if line.split()[0] == "a" and "MB/s" in line and "→" not in line]
    assert "degraded 10 MB/s" in of_a
    assert out.splitlines()[-2:] == [
        "6 links between 3 nodes, median 125 MB/s",
        "a → b is degraded: 10 MB/s",
    ]


def test_the_budget_is_told(run, probed):
    assert run("probe", "--budget", "0.5")[0] == 0
    assert probed.asked == [baton_pb2.ProbeRequest(budget_s=0.5)]


def test_json_has_all_of_it(run, probed, tmp_path):
    code, out, _ = run("probe", "--json", "-")
    assert code == 0
    found = json.loads(out)
    assert len(found["links"]) == 6
    assert found["links"][0]["state"] == "degraded"
    file = tmp_path / "links.json"
    assert run("probe", "--json", str(file))[0] == 0
    assert json.loads(file.read_text()) == found


def test_the_plot_is_a_png(run, probed, tmp_path):
    pytest.importorskip("matplotlib")
    file = tmp_path / "links.png"
    assert run("probe", "--plot", str(file))[0] == 0
    assert file.read_bytes().startswith(PNG)


def test_without_matplotlib_it_is_said_what_is_missing_before_anything_is_measured(
    run,
    probed,
    tmp_path,
    monkeypatch,
):
    monkeypatch.setattr("deploy.heat_map.find_spec", lambda name: None)
    code, _, err = run("probe", "--plot", str(tmp_path / "links.png"))
    assert (code, err) == (2, "baton: a picture needs matplotlib: pip install 'baton[plot]'\n")
    assert probed.asked == []


def test_what_is_saved_reads_back(run, probed, tmp_path):
    file = tmp_path / "net.yaml"
    code, _, err = run("probe", "--save", str(file))
    assert (code, "edited" in err) == (0, False)
    topology = read_topology(file.read_text(), str(file))
    assert [node.name for node in topology.nodes] == ["a", "b", "c"]
    assert topology.link("a", "b").beta_bytes_per_s == 1e7
    assert topology.missing() == []


def test_a_pair_without_a_measurement_has_to_be_added_by_hand_which_is_said(run, router, tmp_path):
    cut = link("a", "b", 0.0, state="unreachable", error="connection refused")
    router.probe = [progress(*all_links(ab=cut))]
    file = tmp_path / "net.yaml"
    code, out, err = run("probe", "--save", str(file))
    assert code == 0
    assert "a → b: nothing gets through: connection refused" in out
    assert "has to be edited before it can be used: links: say nothing of a -> b" in err


def test_a_stream_that_ends_too_early_is_no_success(run, router):
    router.probe = [baton_pb2.ProbeProgress(num_links=6)]
    code, _, err = run("probe")
    assert (code, err.splitlines()[-1]) == (1, "baton: the deployment ended before all links were measured")


def test_status_shows_the_matrix_and_a_degraded_link_stands_out(run, router):
    router.status.node_links.extend(all_links("ab", ab=link("a", "b", 1e7, state="degraded")))
    for node in "ab":
        router.status.nodes.add(node=node, egress_bytes_per_s=1e9)
    code, out, _ = run("status")
    assert code == 0
    assert "out in all" in out
    assert "degraded 10 MB/s" in out
    assert "a → b is degraded: 10 MB/s" in out.splitlines()


def test_status_says_nothing_of_links_of_one_node(run, router):
    router.status.node_links.append(link("a", "a"))
    router.status.nodes.add(node="a")
    assert "MB/s" not in run("status")[1]


def test_many_nodes_are_summed_up(run, router):
    names = [f"n{number}" for number in range(40)]
    for name in names:
        router.status.nodes.add(node=name)
    router.status.node_links.extend(link(a, b) for a in names for b in names if a != b)
    out = run("status")[1]
    assert "1560 links between 40 nodes, median 125 MB/s" in out
    assert len(out.splitlines()) < 20


def test_of_many_nodes_a_status_names_the_links_that_are_wrong(run, router):
    for number in range(40):
        router.status.nodes.add(node=f"n{number}", num_known_links=39, median_link_bytes_per_s=1.25e8)
    router.status.node_links.append(link("n1", "n2", 1e7, state="degraded"))
    lines = run("status")[1].splitlines()
    assert "1560 links between 40 nodes are measured, median 125 MB/s" in lines
    assert "n1 → n2 is degraded: 10 MB/s" in lines


def test_a_topology_from_a_status_has_what_its_nodes_have():
    rows = [baton_pb2.NodeStatus(node="a", group="r", egress_bytes_per_s=1e9, num_gpus=2, num_cpus=8.0)]
    [node] = topology_of(rows, []).nodes
    assert (node.group, node.egress_bytes_per_s, node.ingress_bytes_per_s) == ("r", 1e9, None)
    assert (node.num_gpus, node.num_cpus, node.memory_bytes) == (2, 8.0, None)


def test_a_survey_without_a_deployment_is_shown_like_one():
    survey = Survey(
        topology=make_topology("a", "b", alpha_s=1e-3, beta=1e8),
        links={("a", "b"): SurveyedLink(transport="tcp", num_samples=9, num_connections=4)},
        unreachable=(Unreachable(source="a", target="c", why="refused"),),
    )
    found = progress_of(survey)
    assert (found.num_links, found.num_failed, found.done) == (3, 1, True)
    assert [(one.transport, one.num_samples, one.state) for one in found.links] == [
        ("tcp", 9, "good"),
        ("", 0, "good"),
        ("", 0, "unreachable"),
    ]
    assert [node.node for node in found.nodes] == ["a", "b", "c"]


class FakeSession:
    """In the place of a connection to Ray: a survey that has been made."""

    def __init__(self, address):
        assert address == "10.0.0.1:6379"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def survey(self, budget_s, say):
        say("probing links: round 1 of 1")
        links = {("a", "b"): SurveyedLink(transport="tcp", num_samples=9, num_connections=4)}
        return Survey(topology=make_topology("a", "b", alpha_s=1e-3, beta=1.25e8), links=links)


def test_without_a_deployment_the_ray_cluster_is_surveyed(run_alone, monkeypatch, tmp_path):
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    monkeypatch.setattr("deploy.ray_session.RaySession", FakeSession)
    code, out, err = run_alone("probe", "--save", tmp_path / "net.yaml")
    assert code == 0
    assert err == "probing links: round 1 of 1\n"
    assert "2 links between 2 nodes, median 125 MB/s" in out
    assert read_topology((tmp_path / "net.yaml").read_text(), "net.yaml").link("b", "a").alpha_s == 1e-3


def test_a_status_of_more_links_than_one_usual_message_holds_arrives(run, router):
    router.status.node_links.extend(link("a" * 60, f"{number:060}") for number in range(30_000))
    assert router.status.ByteSize() > 4 << 20
    code, _, err = run("status", "--json")
    assert (code, err) == (0, "")
