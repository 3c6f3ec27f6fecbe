"""All pairs from a sample of them: by groups of like nodes, with what it gets wrong on pairs that were held out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from cluster.topology.grouping import Grouping, Indices, Samples, connected, describe, group
from cluster.topology.topology import Matrix, Node, Topology

NUMS_GROUPS = (2, 3, 4, 8, 16, 32)
_HELD_OUT = 0.1
# A grouping has to be better by so much to be preferred to a simpler one.
_WORTH_IT = 0.98
_MIN_SAMPLES = 20

_Way = Callable[[Samples, np.random.Generator], Grouping]


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """`values` [num_nodes, num_nodes]: as measured where it was, else by its block. `groups` [num_nodes].

    Errors, relative, are of pairs that were held out: the median of them, and what 9 of 10 stay below.
    """

    values: Matrix
    groups: Indices
    median_error: float
    p90_error: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletedTopology:
    """Both errors are of beta; nodes without a group of their own have got the one that was found."""

    topology: Topology
    num_groups: int
    median_error: float
    p90_error: float


def complete_topology(sampled: Topology, rng: np.random.Generator) -> CompletedTopology:
    """Every pair of `sampled` that is missing, from those that are there. The nodes' own groups are tried as well."""
    names = sorted({node.group for node in sampled.nodes})
    labels = np.array([names.index(node.group) for node in sampled.nodes])
    known = [labels] if 1 < len(names) < len(sampled) else []
    beta = complete(sampled.beta_bytes_per_s, rng, known)
    alpha = complete(sampled.alpha_s, rng, [beta.groups, *known], nums_groups=())
    nodes = [_grouped(node, int(at)) for node, at in zip(sampled.nodes, beta.groups, strict=True)]
    residual = np.where(np.isfinite(sampled.beta_bytes_per_s), sampled.residual, beta.median_error)
    return CompletedTopology(
        topology=Topology(nodes, alpha.values, beta.values, residual),
        num_groups=int(beta.groups.max()) + 1,
        median_error=beta.median_error,
        p90_error=beta.p90_error,
    )


def complete(
    measured: Matrix,
    rng: np.random.Generator,
    known: Sequence[Indices] = (),
    nums_groups: Sequence[int] = NUMS_GROUPS,
) -> Completed:
    """`measured`: nan where it was not; what is there is positive. ValueError: it is too little.

    `known`: groupings to be tried beside those found; `nums_groups`: with how many groups to search for them.
    Three parts of the sample: one makes groupings, one chooses among them, one says how wrong the chosen way is, which
    then is gone with all of them. Both directions of a pair are in the same part.
    """
    samples = _samples(measured)
    num_nodes = len(measured)
    part = rng.random((num_nodes, num_nodes))
    part = np.minimum(part, part.T)[samples.rows, samples.columns]
    if len(part) < _MIN_SAMPLES:
        raise ValueError(f"{len(part)} measured links are too few to say anything of the others")
    choose, check = np.quantile(part, 2 * _HELD_OUT), np.quantile(part, _HELD_OUT)
    choosing, checking = samples.part((part <= choose) & (part > check)), samples.part(part <= check)
    ways = _ways(num_nodes, known, nums_groups)
    seed = int(rng.integers(1 << 32))
    way = _choose(ways, samples.part(part > choose), choosing, seed)
    errors = _errors(way(samples.part(part > check), np.random.default_rng(seed)), checking)
    final = way(samples, np.random.default_rng(seed))
    values = np.where(np.isfinite(measured), measured, np.exp(final.whole()))
    np.fill_diagonal(values, np.diag(measured))
    return Completed(
        values=values,
        groups=np.unique(final.groups, return_inverse=True)[1],
        median_error=float(np.median(errors)),
        p90_error=float(np.quantile(errors, 0.9)),
    )


def _ways(num_nodes: int, known: Sequence[Indices], nums_groups: Sequence[int]) -> list[_Way]:
    """To make groups of a sample; the simplest first."""

    def together(samples: Samples, rng: np.random.Generator) -> Grouping:
        return describe(samples, np.zeros(num_nodes, np.intp), 1)

    def labelled(groups: Indices, samples: Samples, rng: np.random.Generator) -> Grouping:
        return describe(samples, groups, int(groups.max()) + 1)

    def alike(number: int, samples: Samples, rng: np.random.Generator) -> Grouping:
        return group(samples, number, num_nodes, rng)

    def connecting(base: _Way, samples: Samples, rng: np.random.Generator) -> Grouping:
        return labelled(connected(samples, base(samples, rng)), samples, rng)

    ways: list[_Way] = [together, *(partial(labelled, groups) for groups in known)]
    if nums_groups:
        searched: list[_Way] = [partial(alike, number) for number in nums_groups if number <= num_nodes // 4]
        ways += [*searched, *(partial(connecting, base) for base in (together, *searched[:2]))]
    return ways


def _choose(ways: Sequence[_Way], learning: Samples, choosing: Samples, seed: int) -> _Way:
    chosen, least = ways[0], np.inf
    for way in ways:
        errors = _errors(way(learning, np.random.default_rng(seed)), choosing)
        error = float(np.mean(np.minimum(errors, 1.0)))
        if error < _WORTH_IT * least:
            chosen, least = way, error
    return chosen


def _errors(grouping: Grouping, samples: Samples) -> Matrix:
    return np.abs(np.expm1(grouping.at(samples.rows, samples.columns) - samples.values))


def _samples(measured: Matrix) -> Samples:
    known = np.isfinite(measured)
    np.fill_diagonal(known, False)
    rows, columns = np.nonzero(known)
    return Samples(rows=rows, columns=columns, values=np.log(np.maximum(measured[rows, columns], 1e-12)))


def _grouped(node: Node, found: int) -> Node:
    return replace(node, group=node.group or f"group{found}")
