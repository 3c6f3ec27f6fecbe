"""The coefficients that steps of known length say: least squares on the relative error, none below zero."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.step_shape import StepShape

MAX_DECODE_SETS = 3
WORTH_A_SET = 0.8
"""Another set of decode coefficients has to bring the error down to this part of what it was."""

GOOD_ENOUGH = 0.005

_LEAST_POINTS = 3  # as many as a set has coefficients


@dataclass(frozen=True, slots=True)
class TimedStep:
    shape: StepShape
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Residuals:
    """|model - measured| / measured, of so many steps."""

    num_steps: int
    median: float
    p90: float
    largest: float


def fit(steps: Sequence[TimedStep]) -> CoefficientModel:
    """From steps of prompts alone and of decodes alone; mixed ones say nothing, their formula has no coefficients.

    Raises ValueError where there are not enough of either.
    """
    prefills = [step for step in steps if not step.shape.num_decodes]
    decodes = [step for step in steps if not step.shape.num_prefill_tokens]
    for what, found in (("prompts alone", prefills), ("decodes alone", decodes)):
        if len(found) < _LEAST_POINTS:
            raise ValueError(f"{len(found)} steps of {what} were timed; {_LEAST_POINTS} are needed at least")
    rows = [(1.0, step.shape.num_prefill_tokens, step.shape.prefill_squares) for step in prefills]
    (fixed_s, s_per_token, s_per_square), _ = _least_squares(rows, prefills)
    prefill = PrefillCost(fixed_s=fixed_s, s_per_token=s_per_token, s_per_square=s_per_square)
    return CoefficientModel(prefill=prefill, decode=_decode_sets(decodes))


def residuals(model: CoefficientModel, steps: Sequence[TimedStep]) -> Residuals:
    errors = [abs(sum(model.stages_s(step.shape)) / step.seconds - 1.0) for step in steps]
    return Residuals(
        num_steps=len(errors),
        median=float(np.median(errors)),
        p90=float(np.quantile(errors, 0.9)),
        largest=max(errors),
    )


def _decode_sets(steps: Sequence[TimedStep]) -> tuple[DecodeCost, ...]:
    """One set for all batches, or more where that is worth it: one sequence alone is often another kernel than many."""
    batches = sorted({step.shape.num_decodes for step in steps})
    best, best_error = _decode_costs(steps, ())
    for num_sets in range(2, MAX_DECODE_SETS + 1):
        found = [_decode_costs(steps, splits) for splits in combinations(batches[1:], num_sets - 1)]
        costs, error = min(found, key=lambda pair: pair[1], default=((), np.inf))
        if best_error < GOOD_ENOUGH or error > WORTH_A_SET * best_error:
            break
        best, best_error = costs, error
    return best


def _decode_costs(steps: Sequence[TimedStep], splits: tuple[int, ...]) -> tuple[tuple[DecodeCost, ...], float]:
    """A set from each of `splits` on, and the root of the mean squared error: infinite where steps are too few."""
    costs, squares = [], 0.0
    for first, end in zip((0, *splits), (*splits, np.inf), strict=True):
        within = [step for step in steps if first <= step.shape.num_decodes < end]
        if len(within) < _LEAST_POINTS:
            return (), np.inf
        rows = [(1.0, step.shape.decode_context, step.shape.num_decodes) for step in within]
        (fixed_s, s_per_context_token, s_per_sequence), error = _least_squares(rows, within)
        costs.append(
            DecodeCost(
                from_batch=first,
                fixed_s=fixed_s,
                s_per_context_token=s_per_context_token,
                s_per_sequence=s_per_sequence,
            )
        )
        squares += error
    return tuple(costs), float(np.sqrt(squares / len(steps)))


def _least_squares(rows: Sequence[tuple[float, ...]], steps: Sequence[TimedStep]) -> tuple[list[float], float]:
    """Coefficients of at least 0, and the sum of squared relative errors. With so few of them all subsets are tried."""
    relative = np.array(rows) / np.array([step.seconds for step in steps])[:, None]
    best, best_error = np.zeros(relative.shape[1]), np.inf
    for size in range(1, relative.shape[1] + 1):
        for columns in combinations(range(relative.shape[1]), size):
            found = _solve(relative[:, columns])
            error = float(np.sum((relative[:, columns] @ found - 1.0) ** 2))
            # Coefficients that change nothing are left at zero.
            if np.all(found >= 0.0) and error < best_error * (1 - 1e-9):
                best, best_error = np.zeros(relative.shape[1]), error
                best[list(columns)] = found
    return best.tolist(), best_error


def _solve(columns: NDArray[np.float64]) -> NDArray[np.float64]:
    """So that they add up to 1 in each row; scaled, as tokens squared are many and seconds few."""
    scales = np.maximum(np.abs(columns).max(axis=0), 1e-300)
    found: NDArray[np.float64] = np.linalg.lstsq(columns / scales, np.ones(len(columns)), rcond=None)[0] / scales
    return found
