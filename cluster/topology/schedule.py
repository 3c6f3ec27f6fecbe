"""Who is measured when: pairs in rounds, each node in at most one pair of a round."""

from collections.abc import Sequence
from math import ceil

import numpy as np

Pair = tuple[str, str]


def tournament(nodes: Sequence[str]) -> list[list[Pair]]:
    """Every pair once (circle method): N - 1 rounds for an even N; N for an odd one, one node resting in each."""
    places: list[str | None] = [*nodes] if len(nodes) % 2 == 0 else [*nodes, None]
    half = len(places) // 2
    rounds = []
    for _ in range(len(places) - 1):
        pairs = zip(places[:half], reversed(places[half:]), strict=True)
        rounds.append([(one, other) for one, other in pairs if one is not None and other is not None])
        places = [places[0], places[-1], *places[1:-1]]
    return rounds


def sampled_rounds(nodes: Sequence[str], fraction: float, rng: np.random.Generator) -> list[list[Pair]]:
    """That fraction of a tournament's rounds, at random: about as much of all pairs, and of each node's."""
    assert 0.0 < fraction <= 1.0
    shuffled = [nodes[index] for index in rng.permutation(len(nodes))]
    rounds = tournament(shuffled)
    num_rounds = min(len(rounds), max(1, ceil(fraction * len(rounds))))
    chosen = sorted(rng.choice(len(rounds), size=num_rounds, replace=False)) if rounds else []
    return [rounds[index] for index in chosen]
