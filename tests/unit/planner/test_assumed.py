import numpy as np
import pytest

from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology
from deploy.planner.assumed import UNREACHABLE_S, assume

pytestmark = pytest.mark.unit


def topology(**betas):
    """ab=1e9 is the rate from a to b."""
    nodes = [Node(name=name, egress_bytes_per_s=5e9) for name in sorted({name for pair in betas for name in pair})]
    return Topology.of_links(
        nodes, {(a, b): LinkModel(alpha_s=1e-3, beta_bytes_per_s=beta) for (a, b), beta in betas.items()}
    )


def nodes(names):
    return [Node(name=name, num_cpus=4.0) for name in names]


def test_what_is_known_now_counts_before_what_was_known():
    found = assume(nodes("ab"), [topology(ab=1e9), topology(ab=2e9, ba=3e9)])
    assert found.link("a", "b").beta_bytes_per_s == 1e9
    assert found.link("b", "a").beta_bytes_per_s == 3e9
    assert not found.missing()


def test_what_nobody_knows_is_taken_to_be_like_the_others():
    found = assume(nodes("abc"), [topology(ab=1e9, ba=3e9)])
    assert found.link("c", "a").beta_bytes_per_s == 2e9
    assert not found.missing()
    assert found.link("a", "a") is None, "within a node nothing has to travel"


def test_nodes_keep_their_own_facts_and_get_the_limits_that_were_measured():
    a, c = assume(nodes("ac"), [topology(ac=1e9), topology(ac=1e9)]).nodes
    assert (a.num_cpus, a.egress_bytes_per_s) == (4.0, 5e9)
    assert assume(nodes("ax"), [topology(ab=1e9, ax=1e9)]).node("x").egress_bytes_per_s == 5e9
    assert c.name == "c"


def test_what_cannot_be_reached_is_kept_away_from():
    found = assume(nodes("ab"), [topology(ab=1e9, ba=1e9)], [("a", "b"), ("a", "gone")])
    assert found.link("a", "b").alpha_s == UNREACHABLE_S
    assert found.link("b", "a").alpha_s < 1.0


def test_one_node_needs_no_links_and_two_do():
    assert len(assume(nodes("a"), [])) == 1
    with pytest.raises(ValueError, match="nothing is known"):
        assume(nodes("ab"), [topology(cd=1e9)])


def test_what_was_known_is_left_as_it_was():
    known = topology(ab=1e9, ba=1e9)
    assume(nodes("ab"), [known], [("a", "b")])
    assert np.nanmax(known.alpha_s) < 1.0


def test_links_within_nodes_are_all_known_or_all_nothing():
    found = assume(nodes("abc"), [topology(ab=1e9, aa=4e9)])
    assert {found.link(name, name).beta_bytes_per_s for name in "abc"} == {4e9}
