"""Prefill and decode instance chosen together, by the seconds that they are predicted to cost this request.

    cost(p, d) = wait for p and prefill there + what p must send to d over that link + what one more costs at d

Filter those with room, as `least_loaded` does; score all pairs; pick the least. All terms are seconds, so a near
instance wins exactly as long as what it saves on the way is more than what its load costs. Over equal links the
transfer is the same for all pairs, and what is left is the choice by load.
"""

from collections.abc import Sequence
from statistics import median

import numpy as np

from router.policies.interface import Decision, Forecast, InstanceView, Matrix, RequestView
from router.policies.least_loaded import decode_load, has_room, prefill_load, takes_prompts

# What counts as long as no instance has measured anything.
_USUAL_PREFILL_TOKENS_PER_S = 5_000.0
_USUAL_DECODE_STEP_S = 0.03

# Instances that differ by less are equally fast: measurements vary, and by that much nobody should be preferred.
_SAME_SPEED = 1.5

# And none counts as faster or slower than usual by more: whoever is avoided altogether never shows that it is not slow.
_MOST_APART = 2.0

# Nor is a way shorter or longer than usual that differs from it by no more than links are measured wrong.
_SAME_WAY = 1.15

# A request slows down the decode instance that it comes to, and is slowed down by it, for about so many steps.
_STEPS_AHEAD = 32
_LEAST_FREE = 0.01

# Of the blocks, for output that is to come: an instance counts as full when it has no more than this left.
_KEPT_FREE = 0.1


class LeastTime:
    def select(self, request: RequestView, instances: Sequence[InstanceView], forecast: Forecast) -> Decision | None:
        prefills = sorted(filter(takes_prompts, instances), key=prefill_load)
        decodes = sorted((it for it in instances if has_room(it, request)), key=decode_load)
        if not prefills or not decodes:
            return None
        costs_s = _prefill_s(request, prefills)[:, None] + _decode_s(request, decodes)[None, :]
        total_s = costs_s + _transfer_s(request, prefills, decodes, forecast)
        if not np.isfinite(total_s).any():
            total_s = costs_s  # it will decode where it is prefilled
        row, column = np.unravel_index(int(total_s.argmin()), total_s.shape)
        return Decision(prefills[row].holder, decodes[column].holder)


def _prefill_s(request: RequestView, prefills: Sequence[InstanceView]) -> Matrix:
    """[num_prefills]: until the first token, from what is queued there and what it has of the prompt already."""
    num_missing = _num_missing_tokens(request, prefills)
    num_tokens = [it.num_queued_tokens + count for it, count in zip(prefills, num_missing, strict=True)]
    speeds = _about([it.prefill_tokens_per_s for it in prefills], _USUAL_PREFILL_TOKENS_PER_S)
    return np.array(num_tokens, float) / speeds


def _decode_s(request: RequestView, decodes: Sequence[InstanceView]) -> Matrix:
    """[num_decodes]: what it costs to decode there, for it and for the others.

    A step takes longer the more memory there is to read and the more sequences there are, and the less is free, the
    sooner some will have to be computed again: the steps ahead count as many times as a queue of that utilisation is
    longer than an empty one, 1 / (1 - used), a hundred times at most. How long a step is says what the load was a
    moment ago more than what the machine can do, so it is the same for all, and only makes seconds of what is used;
    that is up to date.
    """
    needed = [request.num_prompt_tokens // it.block_size + 1 for it in decodes]
    used = [
        max(
            (it.num_committed_blocks + more) / (it.num_blocks * (1.0 - _KEPT_FREE)),
            (it.num_requests + 1) / it.max_num_seqs,
        )
        for it, more in zip(decodes, needed, strict=True)
    ]
    step_s = _middle([it.decode_step_s for it in decodes], _USUAL_DECODE_STEP_S)
    return np.asarray(_STEPS_AHEAD * step_s / np.maximum(1.0 - np.array(used), _LEAST_FREE))


def _transfer_s(
    request: RequestView, prefills: Sequence[InstanceView], decodes: Sequence[InstanceView], forecast: Forecast
) -> Matrix:
    """[num_prefills, num_decodes]; inf where no KV gets through. An instance that can decode keeps what it prefills."""
    missing = np.array(_num_missing_tokens(request, decodes), float)
    sources, targets = ([it.holder for it in side] for side in (prefills, decodes))
    times_s = _alike(forecast.transfers_s(sources, targets, np.broadcast_to(missing, (len(sources), len(targets)))))
    if set(sources).isdisjoint(targets) and not any(prefill.unreachable for prefill in prefills):
        return times_s
    columns = {target: column for column, target in enumerate(targets)}
    for row, prefill in enumerate(prefills):
        if (own := columns.get(prefill.holder)) is not None:
            times_s[row] = np.inf
            times_s[row, own] = 0.0
        for target in prefill.unreachable:
            if (column := columns.get(target)) is not None and target != prefill.holder:
                times_s[row, column] = np.inf
    return times_s


def _num_missing_tokens(request: RequestView, instances: Sequence[InstanceView]) -> list[int]:
    """Of each."""
    if not request.num_known_tokens:
        return [max(1, request.num_prompt_tokens)] * len(instances)
    return [request.num_missing_tokens(it.holder) for it in instances]


def _alike(times_s: Matrix) -> Matrix:
    usual_s = np.median(times_s)
    return np.where((times_s < usual_s * _SAME_WAY) & (times_s * _SAME_WAY > usual_s), usual_s, times_s)


def _middle(measured: Sequence[float], usual: float) -> float:
    """0 is nothing measured yet."""
    known = [value for value in measured if value > 0.0]
    return median(known) if known else usual


def _about(measured: Sequence[float], usual: float) -> Matrix:
    """Each its own; of those that are about alike, and those that have measured nothing yet, what is usual."""
    middle = _middle(measured, usual)
    least, most = middle / _MOST_APART, middle * _MOST_APART
    return np.array([_unless_alike(value, middle, least, most) for value in measured])


def _unless_alike(value: float, middle: float, least: float, most: float) -> float:
    is_alike = value < middle * _SAME_SPEED and value * _SAME_SPEED > middle
    return middle if is_alike or value <= 0.0 else min(max(value, least), most)
