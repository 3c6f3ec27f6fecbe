from itertools import combinations

import pytest

from cluster.topology.schedule import sampled_rounds, tournament

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("num_nodes", [0, 1, 2, 3, 4, 7, 8, 16])
def test_a_tournament_has_every_pair_once_in_rounds_of_disjoint_pairs(num_nodes):
    nodes = [f"n{index}" for index in range(num_nodes)]
    rounds = tournament(nodes)
    assert len(rounds) == (max(0, num_nodes - 1) if num_nodes % 2 == 0 else num_nodes)
    for pairs in rounds:
        assert len({node for pair in pairs for node in pair}) == 2 * len(pairs)
    pairs = [frozenset(pair) for pairs in rounds for pair in pairs]
    assert len(pairs) == len(set(pairs))
    assert set(pairs) == {frozenset(pair) for pair in combinations(nodes, 2)}


def test_a_sample_treats_all_nodes_alike(rng):
    nodes = [f"n{index}" for index in range(100)]
    rounds = sampled_rounds(nodes, 0.05, rng)
    assert len(rounds) == 5
    for node in nodes:
        assert sum(node in pair for pairs in rounds for pair in pairs) == 5


def test_all_pairs_are_a_sample_too(rng):
    assert sum(map(len, sampled_rounds(["a", "b", "c"], 1.0, rng))) == 3
