"""From timings on a GPU to the figures of `baton bench engine --device cuda`, as `--json` has them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from deploy.bench.aims import Aim

GRAPHS, NO_GRAPHS, INVARIANT = "graphs", "no graphs", "batch-invariant"
WAYS = (GRAPHS, NO_GRAPHS, INVARIANT)
"""Ways to compute the same steps; the first is the engine's own."""

LEAST_DECODE_SHARE = 0.85
LEAST_PREFILL_SHARE = 0.6
MOST_GAP_SHARE = 0.03


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeTurn:
    """`step_s`: in the engine's loop. `pass_s`: of the same pass over and over, which the host never keeps waiting.

    `gap_share`: of a step, from its predecessor's tokens to its own launch. `bytes_per_s`: of the memory, just before.
    """

    step_s: float
    pass_s: float
    gap_share: float
    bytes_per_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefillTurn:
    """`flops_per_s`: of the device's best matrix product, just before."""

    seconds: float
    flops_per_s: float


def decode_row(
    batch_size: int, way: str, turns: Sequence[DecodeTurn], own: Sequence[DecodeTurn], step_bytes: float
) -> dict[str, Any]:
    """`own`: the turns beside these of the engine's own way, of whose steps these take `cost` more."""
    step_s = median(turn.step_s for turn in turns)
    return {
        "batch_size": batch_size,
        "way": way,
        "step_ms": 1000 * step_s,
        "throughput": batch_size / step_s,
        "bound_ms": 1000 * median(step_bytes / turn.bytes_per_s for turn in turns),
        "share_of_bound": median(step_bytes / turn.bytes_per_s / turn.step_s for turn in turns),
        "host_gap_share": median(turn.gap_share for turn in turns),
        "beyond_pass_share": median(1 - turn.pass_s / turn.step_s for turn in turns),
        "cost": median(turn.step_s / beside.step_s for turn, beside in zip(turns, own, strict=True)) - 1,
    }


def prefill_row(
    num_tokens: int, way: str, turns: Sequence[PrefillTurn], own: Sequence[PrefillTurn], flops: float
) -> dict[str, Any]:
    seconds = median(turn.seconds for turn in turns)
    return {
        "num_tokens": num_tokens,
        "way": way,
        "ms": 1000 * seconds,
        "throughput": num_tokens / seconds,
        "flops_per_s": flops / seconds,
        "share_of_products": median(flops / turn.seconds / turn.flops_per_s for turn in turns),
        "cost": median(turn.seconds / beside.seconds for turn, beside in zip(turns, own, strict=True)) - 1,
    }


def engine_aims(figures: dict[str, Any]) -> list[Aim]:
    """Of the engine's own way alone."""
    aims = []
    for row in figures["decode"]:
        if row["way"] == GRAPHS:
            name = f"decode at batch {row['batch_size']}"
            share, gap = row["share_of_bound"], row["host_gap_share"]
            aims.append(Aim(what=f"{name}: share of the memory's bound", value=share, least=LEAST_DECODE_SHARE))
            aims.append(Aim(what=f"{name}: host gap, of a step", value=gap, most=MOST_GAP_SHARE))
    for row in figures["prefill"]:
        if row["way"] == GRAPHS:
            what = f"prefill of {row['num_tokens']}: share of the products' rate"
            aims.append(Aim(what=what, value=row["share_of_products"], least=LEAST_PREFILL_SHARE))
    return aims
