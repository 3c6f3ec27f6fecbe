import json

import numpy as np
import pytest
import yaml

from cluster.spec.problem import SpecError
from cluster.topology.read import read_topology
from cluster.topology.synthetic import racks
from cluster.topology.topology import Node, Topology
from cluster.topology.write import format_topology

pytestmark = pytest.mark.unit

TEXT = """\
apiVersion: baton/v1
kind: Topology
nodes:
  - {name: a, group: one, gpus: 2, cpus: 8, memory: 16GiB, egress_bytes_per_s: 2e9, gpu_links: [[0, 5e9], [5e9, 0]]}
  - {name: b, group: two}
links:
  - {source: a, target: b, alpha_s: 1.0e-4, beta_bytes_per_s: 1e9, residual: 0.02}
group_links:
  - {source: two, target: one, alpha_s: 2.0e-4, beta_bytes_per_s: 5.0e+8}
  - {source: one, target: two, alpha_s: 9.0, beta_bytes_per_s: 7}
"""


def problems(text, name="net.yaml"):
    with pytest.raises(SpecError) as refused:
        read_topology(text, name)
    assert refused.value.source == name
    return [str(problem) for problem in refused.value.problems]


def test_what_is_written_is_read():
    topology = read_topology(TEXT, "net.yaml")
    a, b = topology.nodes
    assert (a.name, a.group, a.num_gpus, a.num_cpus, a.memory_bytes) == ("a", "one", 2, 8.0, 16 << 30)
    assert (a.egress_bytes_per_s, a.ingress_bytes_per_s, b.egress_bytes_per_s) == (2e9, None, None)
    assert a.gpu_links == ((0.0, 5e9), (5e9, 0.0))
    there, back = topology.link("a", "b"), topology.link("b", "a")
    assert (there.alpha_s, there.beta_bytes_per_s, there.residual) == (
        1e-4,
        1e9,
        0.02,
    )
    assert (back.alpha_s, back.beta_bytes_per_s) == (2e-4, 5e8)
    assert topology.link("a", "a") is None


def test_what_is_saved_is_read_back_as_it_was(rng):
    made = racks(2, 3, inside=12e9, between=3e9)
    nodes = [*made.nodes[:5], Node(name="x", egress_bytes_per_s=12e9, memory_bytes=5, gpu_memory_bytes=7, num_cpus=2.5)]
    topology = Topology(nodes, made.alpha_s, made.beta_bytes_per_s * rng.uniform(0.9, 1.1, (6, 6)), made.alpha_s)
    text = format_topology(topology)
    read = read_topology(text, "net.json")
    assert read.nodes == topology.nodes
    np.testing.assert_allclose(read.alpha_s, topology.alpha_s, rtol=1e-5)
    np.testing.assert_allclose(read.beta_bytes_per_s, topology.beta_bytes_per_s, rtol=1e-5)
    assert format_topology(read_topology(yaml.safe_dump(json.loads(text)), "net.yaml")) == format_topology(read)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("alpha_s: 1.0e-4, ", "", "links[0].alpha_s: is missing (line 7)"),
        (
            "beta_bytes_per_s: 1e9",
            "beta_bytes_per_s: -1e9",
            "links[0].beta_bytes_per_s: is '-1e9'; should be a number above 0",
        ),
        (
            "beta_bytes_per_s: 1e9",
            "beta_bytes_per_s: .nan",
            "links[0].beta_bytes_per_s: is nan; should be a number above 0",
        ),
        ("beta_bytes_per_s: 1e9", "beta_bytes_per_s: fast", "is 'fast'; should be a number above 0 (line 7)"),
        ("alpha_s: 1.0e-4", "alpha_s: -1", "links[0].alpha_s: is -1; should be a number, 0 or more (line 7)"),
        ("target: b", "target: c", "links[0].target: is 'c'; there is no such node in nodes (line 7)"),
        ("source: two", "source: three", "group_links[0].source: is 'three'; there is no such group in nodes (line 9)"),
        ("name: b", "name: a", "nodes[1].name: is 'a', as is nodes[0].name; names have to differ (line 5)"),
        ("memory: 16GiB", "memory: lots", "nodes[0].memory: 'lots' is no size"),
        ("gpus: 2", "gpus: 3", "nodes[0].gpu_links: should be 3 rows of 3 rates, as there are gpus (line 4)"),
        ("cpus: 8", "cpu: 8", "nodes[0].cpu: is not known; the keys here are name, group"),
        ("kind: Topology", "kind: Deployment", "kind: is 'Deployment'; should be 'Topology' (line 2)"),
        ("5.0e+8", "5.0e+6", "b -> a has 5e+06 bytes/s, the way back 1e+09: more than 100 times as much"),
        (
            "2e9",
            "2e8",
            "links[0]: a -> b has 1e+09 bytes/s, more than all that nodes[0].egress_bytes_per_s of a allows",
        ),
        (
            "  - {source: two, target: one, alpha_s: 2.0e-4, beta_bytes_per_s: 5.0e+8}\n",
            "",
            "links: say nothing of b -> a; add an entry, or one for their groups to group_links (line 6)",
        ),
    ],
)
def test_what_is_wrong_is_named_with_its_place(old, new, expected):
    assert old in TEXT
    found = problems(TEXT.replace(old, new, 1))
    assert len(found) == 1
    assert expected in found[0]


def test_a_pair_that_is_given_twice_is_a_contradiction_or_a_repetition():
    line = TEXT.splitlines()[6] + "\n"
    twice = TEXT.replace(line, line + line)
    assert "links[1]: is given twice: a -> b is links[0] already; keep one (line 8)" in problems(twice)[0]
    other = TEXT.replace(line, line + line.replace("1e9", "3e9"))
    assert "links[1]: contradicts another entry: a -> b is links[0] already; keep one (line 8)" in problems(other)[0]


@pytest.mark.parametrize("text", ["", "[]", "nodes: 3", "a: [", "{", '{"nodes": [], "nodes": []}'])
def test_what_is_no_topology_at_all_is_refused(text):
    assert problems(text)


def test_a_thousand_nodes_are_read_from_a_few_lines():
    topology = racks(20, 50, inside=12e9, between=5e9)
    nodes = [{"name": node.name, "group": node.group, "gpus": 8} for node in topology.nodes]
    names = sorted({node.group for node in topology.nodes})
    links = [
        {"source": a, "target": b, "alpha_s": 1e-4, "beta_bytes_per_s": 12e9 if a == b else 5e9}
        for a in names
        for b in names
    ]
    text = json.dumps({"apiVersion": "baton/v1", "kind": "Topology", "nodes": nodes, "group_links": links})
    read = read_topology(text, "net.json")
    np.testing.assert_array_equal(read.beta_bytes_per_s, topology.beta_bytes_per_s)


def test_a_contradiction_between_groups_is_said_of_their_entry_and_not_of_every_pair():
    nodes = [{"name": f"{group}{at}", "group": group} for group in "xy" for at in range(20)]
    rates = {("x", "x"): 1e9, ("y", "y"): 1e9, ("x", "y"): 1e9, ("y", "x"): 1e6}
    links = [{"source": a, "target": b, "alpha_s": 1e-4, "beta_bytes_per_s": rate} for (a, b), rate in rates.items()]
    found = problems(json.dumps({"apiVersion": "baton/v1", "kind": "Topology", "nodes": nodes, "group_links": links}))
    assert len(found) <= 8
    assert found[0].startswith("group_links[3]: y0 -> x0 has 1e+06 bytes/s, the way back 1e+09")
