"""Groups of like nodes, found in samples alone: nodes that get about the same rates from, and to, the same others.

A stochastic block model with medians: what lies between two groups is one value; each node belongs where its samples
differ least from those values. Values are logarithms, so that differences are relative.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cluster.topology.topology import Matrix

Indices = NDArray[np.intp]
_MAX_SWEEPS = 12
_MIN_TELLING = 3  # samples that a block's or a node's own value needs
_MIN_PIECE = 4
_BETTER = 0.15


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """[num_samples] each: from which node, to which, and the logarithm of what was measured."""

    rows: Indices
    columns: Indices
    values: Matrix

    def part(self, chosen: NDArray[np.bool_]) -> "Samples":
        return Samples(rows=self.rows[chosen], columns=self.columns[chosen], values=self.values[chosen])


@dataclass(frozen=True, slots=True, kw_only=True)
class Grouping:
    """`groups` [num_nodes]; `blocks` [num_groups, num_groups]; `out_limits`, `in_limits` [num_nodes]: what a node's own
    cable allows, inf where nothing shows one."""

    groups: Indices
    blocks: Matrix
    out_limits: Matrix
    in_limits: Matrix

    def at(self, rows: Indices, columns: Indices) -> Matrix:
        block = self.blocks[self.groups[rows], self.groups[columns]]
        return np.minimum(block, np.minimum(self.out_limits[rows], self.in_limits[columns]))

    def whole(self) -> Matrix:
        """[num_nodes, num_nodes]"""
        block = self.blocks[np.ix_(self.groups, self.groups)]
        return np.minimum(block, np.minimum(self.out_limits[:, None], self.in_limits[None, :]))


def embed(samples: Samples, num_nodes: int, num_dimensions: int) -> Matrix:
    """[num_nodes, num_dimensions]: where nodes lie by what they send and get (singular vectors, largest first)."""
    centred = samples.values - np.median(samples.values)
    matrix = np.zeros((num_nodes, num_nodes))
    matrix[samples.rows, samples.columns] = centred
    both = np.hstack([matrix, matrix.T])
    values, vectors = np.linalg.eigh(both @ both.T)
    return np.asarray(vectors[:, ::-1][:, :num_dimensions] * np.sqrt(np.maximum(values[::-1][:num_dimensions], 0.0)))


def group(samples: Samples, num_groups: int, num_nodes: int, rng: np.random.Generator) -> Grouping:
    """From places to groups, then nodes change groups as long as that lessens what is left unexplained."""
    groups = _spread(embed(samples, num_nodes, num_groups + 2), num_groups, rng)
    for _ in range(_MAX_SWEEPS):
        blocks = _blocks(samples, groups, num_groups)
        moved = _reassign(samples, groups, blocks)
        if np.array_equal(moved, groups):
            break
        groups = moved
    return describe(samples, groups, num_groups)


def connected(samples: Samples, base: Grouping) -> Indices:
    """`base`'s groups, cut into what hangs together by links that are better than it says: racks, rails.

    In a sample each node has a link or two inside its rack, too few to be told from its profile, but they make chains.
    """
    num_nodes = len(base.groups)
    extra = samples.values - base.at(samples.rows, samples.columns)
    noise = float(np.median(np.abs(extra)))
    better = extra > max(_BETTER, 6.0 * noise)
    pieces = _components(samples.rows[better], samples.columns[better], num_nodes)
    sizes = np.bincount(pieces, minlength=num_nodes)
    pieces = np.where(
        sizes[pieces] >= _MIN_PIECE, pieces, num_nodes
    )  # who hangs on to hardly anybody stays in one rest
    return np.asarray(np.unique(base.groups * (num_nodes + 1) + pieces, return_inverse=True)[1])


def _components(rows: Indices, columns: Indices, num_nodes: int) -> Indices:
    """[num_nodes]: the least node that each one hangs together with."""
    least = np.arange(num_nodes)
    while True:
        before = least.copy()
        lesser = np.minimum(least[rows], least[columns])
        np.minimum.at(least, rows, lesser)
        np.minimum.at(least, columns, lesser)
        least = least[least]
        if np.array_equal(least, before):
            return least


def describe(samples: Samples, groups: Indices, num_groups: int) -> Grouping:
    """These groups with their blocks, and the limits of nodes that are below what their blocks promise."""
    blocks = _blocks(samples, groups, num_groups)
    no_limits = np.full(len(groups), np.inf)
    grouping = Grouping(groups=groups, blocks=blocks, out_limits=no_limits, in_limits=no_limits)
    missing = samples.values - grouping.at(samples.rows, samples.columns)
    return Grouping(
        groups=groups,
        blocks=blocks,
        out_limits=_limits(samples.rows, samples.values, missing, len(groups)),
        in_limits=_limits(samples.columns, samples.values, missing, len(groups)),
    )


def medians_by(keys: Indices, values: Matrix, num_keys: int) -> tuple[Matrix, Indices]:
    """[num_keys] each: the median of the values of a key, nan for none, and their number."""
    order = np.lexsort((values, keys))
    counts = np.bincount(keys, minlength=num_keys)
    starts = np.cumsum(counts) - counts
    medians = np.full(num_keys, np.nan)
    some = counts > 0
    ordered = values[order]
    low, high = starts + (counts - 1) // 2, starts + counts // 2
    medians[some] = (ordered[low[some]] + ordered[high[some]]) / 2
    return medians, counts


def _blocks(samples: Samples, groups: Indices, num_groups: int) -> Matrix:
    """Medians; where two groups have hardly a sample in common, what they have with others, the lesser of the two."""
    keys = groups[samples.rows] * num_groups + groups[samples.columns]
    medians, counts = medians_by(keys, samples.values, num_groups**2)
    blocks, counts = medians.reshape(num_groups, num_groups), counts.reshape(num_groups, num_groups)
    overall = float(np.median(samples.values))
    sent, _ = medians_by(groups[samples.rows], samples.values, num_groups)
    taken, _ = medians_by(groups[samples.columns], samples.values, num_groups)
    usual = np.minimum(np.nan_to_num(sent, nan=overall)[:, None], np.nan_to_num(taken, nan=overall)[None, :])
    return np.where(counts >= _MIN_TELLING, blocks, usual)


def _reassign(samples: Samples, groups: Indices, blocks: Matrix) -> Indices:
    num_nodes, num_groups = len(groups), len(blocks)
    costs = np.zeros((num_nodes, num_groups))
    for candidate in range(num_groups):
        as_source = np.abs(samples.values - blocks[candidate, groups[samples.columns]])
        as_target = np.abs(samples.values - blocks[groups[samples.rows], candidate])
        costs[:, candidate] = np.bincount(samples.rows, as_source, num_nodes)
        costs[:, candidate] += np.bincount(samples.columns, as_target, num_nodes)
    best = costs.argmin(axis=1)
    stays = costs[np.arange(num_nodes), groups] <= costs[np.arange(num_nodes), best] + 1e-12
    return np.where(stays, groups, best)


def _limits(nodes: Indices, values: Matrix, missing: Matrix, num_nodes: int) -> Matrix:
    """A node that is below its blocks in nearly all of its samples has a limit of its own: what it usually gets."""
    usual, counts = medians_by(nodes, values, num_nodes)
    short = np.bincount(nodes, missing < -0.1, num_nodes) > 0.75 * counts
    return np.where(short & (counts >= _MIN_TELLING), usual, np.inf)


def _spread(features: Matrix, num_groups: int, rng: np.random.Generator) -> Indices:
    """k-means, begun far apart (k-means++ with the greatest distances)."""
    centres = features[[int(rng.integers(len(features)))]]
    nearest = ((features - centres[0]) ** 2).sum(axis=1)
    while len(centres) < num_groups:
        chances = nearest / nearest.sum() if nearest.sum() > 0 else None
        centres = np.vstack([centres, features[int(rng.choice(len(features), p=chances))]])
        nearest = np.minimum(nearest, ((features - centres[-1]) ** 2).sum(axis=1))
    groups = np.zeros(len(features), np.intp)
    for _ in range(20):
        distances = (features**2).sum(axis=1)[:, None] - 2 * features @ centres.T + (centres**2).sum(axis=1)[None, :]
        groups = distances.argmin(axis=1)
        sizes = np.bincount(groups, minlength=len(centres))
        sums = np.stack([np.bincount(groups, column, len(centres)) for column in features.T], axis=1)
        centres = np.where(sizes[:, None] > 0, sums / np.maximum(sizes, 1)[:, None], centres)
    return np.asarray(groups)
