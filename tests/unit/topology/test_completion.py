"""1,000 nodes of which 5 % of the pairs were measured, with 3 % of noise: what the others are said to be."""

from dataclasses import replace

import numpy as np
import pytest

from cluster.topology.completion import complete, complete_topology
from cluster.topology.schedule import sampled_rounds
from cluster.topology.synthetic import limited, measured, racks, rails, slowed_between
from cluster.topology.topology import Topology

pytestmark = pytest.mark.simulated

GB = 1e9
RACKS = racks(20, 50, inside=12 * GB, between=5 * GB)
SLOW_RACK = [node.name for node in RACKS.nodes if node.group == "r3"]


def sample(topology, rng, fraction=0.05):
    names = [node.name for node in topology.nodes]
    pairs = [pair for pairs in sampled_rounds(names, fraction, rng) for pair in pairs]
    return measured(unlabelled(topology), pairs, 0.03, rng)


def unlabelled(topology):
    nodes = [replace(node, group="") for node in topology.nodes]
    return Topology(nodes, topology.alpha_s, topology.beta_bytes_per_s)


def errors(completed, topology, chosen):
    """Of beta, relative, over the chosen pairs."""
    found, true = completed.topology.beta_bytes_per_s[chosen], topology.beta_bytes_per_s[chosen]
    return np.abs(found / true - 1)


@pytest.mark.parametrize(
    "topology",
    [
        pytest.param(RACKS, id="racks"),
        pytest.param(rails(1000, 8, same=12 * GB, other=4 * GB), id="rails"),
        pytest.param(limited(RACKS, SLOW_RACK, 1 * GB), id="a slow rack"),
        pytest.param(limited(RACKS, ["r2n4"], 0.5 * GB, inwards=False), id="the slow cable of a node"),
        pytest.param(slowed_between(RACKS, "r1", "r5", 0.3 * GB), id="a slow cable between racks"),
    ],
)
def test_all_pairs_follow_from_a_twentieth_of_them(topology, rng):
    sampled = sample(topology, rng)
    completed = complete_topology(sampled, rng)
    unseen = ~np.isfinite(sampled.beta_bytes_per_s) & np.isfinite(topology.beta_bytes_per_s)
    assert not completed.topology.missing()
    assert np.median(errors(completed, topology, unseen)) < 0.1
    assert completed.median_error < 0.1  # as it reports itself, against noisy pairs that were held out
    # What is not as most are is the reason to look: it has to be right as well.
    usual = np.nanmedian(topology.beta_bytes_per_s)
    special = unseen & (np.abs(topology.beta_bytes_per_s / usual - 1) > 0.2)
    assert np.median(errors(completed, topology, special)) < 0.1
    alpha_errors = np.abs(completed.topology.alpha_s / topology.alpha_s - 1)[unseen]
    assert np.median(alpha_errors) < 0.1


def test_what_was_measured_stays_as_measured(rng):
    sampled = sample(racks(4, 25, inside=12 * GB, between=3 * GB), rng, 0.2)
    completed = complete_topology(sampled, rng).topology
    known = np.isfinite(sampled.beta_bytes_per_s)
    assert np.array_equal(completed.beta_bytes_per_s[known], sampled.beta_bytes_per_s[known])


def test_labels_help_where_the_sample_is_too_thin_to_find_racks(rng):
    topology = racks(40, 10, inside=12 * GB, between=3 * GB)
    sampled = sample(topology, rng)
    labelled = Topology(topology.nodes, sampled.alpha_s, sampled.beta_bytes_per_s)
    inside = np.isfinite(topology.beta_bytes_per_s) & (topology.beta_bytes_per_s > 6 * GB)
    assert np.median(errors(complete_topology(labelled, rng), topology, inside)) < 0.1


def test_no_structure_is_found_where_there_is_none_and_the_error_says_so(rng):
    values = np.exp(rng.standard_normal((200, 200)))
    values[rng.random((200, 200)) > 0.1] = np.nan
    completed = complete(values, rng)
    assert completed.median_error > 0.3


def test_hardly_any_sample_is_too_little(rng):
    values = np.full((50, 50), np.nan)
    values[0, 1] = values[1, 0] = 1.0
    with pytest.raises(ValueError, match="2 measured links are too few"):
        complete(values, rng)
