"""A link's latency and bandwidth from timed transfers, by medians that a few stalls do not move."""

from collections.abc import Iterable, Sequence
from itertools import combinations

from cluster.topology.link_model import LinkModel

# A sample: bytes, seconds, weight.
_Samples = list[tuple[float, float, float]]


def fit_link(samples: Sequence[tuple[float, float]], weights: Sequence[float] | None = None) -> LinkModel | None:
    """The model of samples (bytes, seconds); None without any. After Theil and Sen, weighted.

    Noise grows with the time that a transfer should take: so the slope between two samples counts for the more, the
    more bytes are between them and the less time both should take; and small transfers say what alpha is. What they
    should take says a first fit that goes by sizes. Not what they took: old and fast would outvote new and slow ones.
    Where the sizes do not tell the two apart (all alike, or noise), all of the time is put down to the bandwidth.
    """
    given = list(weights) if weights is not None else [1.0] * len(samples)
    kept = [(n, t, w) for (n, t), w in zip(samples, given, strict=True) if t > 0.0 and w > 0.0]
    if not any(n > 0 for n, _, _ in kept):
        return None
    alpha_s, slope = _weighted(kept, [n + 1.0 for n, _, _ in kept])
    alpha_s, slope = _weighted(kept, [alpha_s + slope * n for n, _, _ in kept])
    residual = weighted_median((abs(t - alpha_s - slope * n) / (alpha_s + slope * n), w) for n, t, w in kept if n > 0)
    return LinkModel(alpha_s=alpha_s, beta_bytes_per_s=1.0 / slope, residual=residual)


def _weighted(kept: _Samples, scales: list[float]) -> tuple[float, float]:
    """(alpha_s, seconds per byte), each sample's noise taken to be in proportion to its scale."""
    scaled = [(n, t, w, scale or 1e-12) for (n, t, w), scale in zip(kept, scales, strict=True)]
    slope = weighted_median(
        ((t1 - t0) / (n1 - n0), w0 * w1 * abs(n1 - n0) / (scale0 + scale1))
        for (n0, t0, w0, scale0), (n1, t1, w1, scale1) in combinations(scaled, 2)
        if n1 != n0
    )
    alpha_s = weighted_median((t - slope * n, w / scale) for n, t, w, scale in scaled)
    if slope > 0.0 and alpha_s >= 0.0:
        return alpha_s, slope
    return 0.0, weighted_median((t / n, w) for n, t, w in kept if n > 0)


def weighted_median(values: Iterable[tuple[float, float]]) -> float:
    """Of (value, weight): where half of the weight is reached, or half-way between two of them; 0 of none."""
    ordered = sorted(pair for pair in values if pair[1] > 0.0)
    half = sum(weight for _, weight in ordered) / 2
    reached = 0.0
    for index, (value, weight) in enumerate(ordered):
        reached += weight
        if reached > half * (1 + 1e-12):
            return value
        if reached >= half * (1 - 1e-12):
            return (value + ordered[min(index + 1, len(ordered) - 1)][0]) / 2
    return 0.0
