"""From the turns of `baton bench engine` to its figures: ratios are medians of the ratios within a turn."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from cluster.model.config import ModelConfig
from deploy.bench.engine_bound import Bound, decode_step_bytes, mean_context
from deploy.bench.engine_stages import STAGES, Seconds
from deploy.bench.engine_turns import Generation

LEAST_SPEEDUP = 1.3
LEAST_SHARE = 0.85


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    num_prompt_tokens: int
    num_new_tokens: int

    @property
    def num_steps(self) -> int:
        """The first new token belongs to the prefill; all others are decode steps."""
        return self.num_new_tokens - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """What was measured one after the other, of one decode step: by stage, but for torch's products."""

    engine: Generation
    torch_products_s: float
    products_s: Seconds
    stages_s: Seconds
    bytes_per_s: float
    others: dict[str, Generation] = field(default_factory=dict)


def summarise(
    batch_size: int, turns: Sequence[Turn], lengths: Lengths, config: ModelConfig, itemsize: int
) -> dict[str, Any]:
    """Of one batch size, as `--json` has it."""
    context = mean_context(lengths.num_prompt_tokens, lengths.num_new_tokens)
    num_bytes = decode_step_bytes(config, batch_size, context, itemsize)
    bounds = [
        Bound(
            torch_s=turn.torch_products_s,
            own_s=sum(turn.products_s.values()),
            bytes_s=num_bytes / turn.bytes_per_s,
        )
        for turn in turns
    ]
    typical = Bound(
        **{name: median(getattr(bound, name) for bound in bounds) for name in ("torch_s", "own_s", "bytes_s")}
    )
    return {
        "batch_size": batch_size,
        **_speeds(batch_size, [turn.engine for turn in turns], lengths),
        "torch_products_ms": 1000 * typical.torch_s,
        "own_products_ms": 1000 * typical.own_s,
        "step_bytes": num_bytes,
        "memory_bytes_per_s": median(turn.bytes_per_s for turn in turns),
        "step_bytes_ms": 1000 * typical.bytes_s,
        "bound": typical.name,
        "bound_ms": 1000 * typical.seconds,
        "share_of_bound": _share([bound.seconds for bound in bounds], turns),
        "share_of_own": _share([bound.of_own_s for bound in bounds], turns),
        "stages": [_stage(name, turns) for name in STAGES],
        "compared": {name: _compared(name, batch_size, turns, lengths) for name in turns[0].others},
    }


def missed(batches: Sequence[dict[str, Any]]) -> list[str]:
    """What the figures fall short of, in words."""
    out = []
    for batch in batches:
        size, share = batch["batch_size"], batch["share_of_bound"]
        if share < LEAST_SHARE:
            out.append(f"batch {size}: {share:.0%} of the bound set by {batch['bound']}, {LEAST_SHARE:.0%} asked")
        for name, other in batch["compared"].items():
            if other["decode_speedup"] < LEAST_SPEEDUP:
                out.append(f"batch {size}: {other['decode_speedup']:.2f} times {name}, {LEAST_SPEEDUP} asked")
    return out


def _share(bounds_s: Sequence[float], turns: Sequence[Turn]) -> float:
    return median(bound_s / turn.engine.step_s for bound_s, turn in zip(bounds_s, turns, strict=True))


def _speeds(batch_size: int, generations: Sequence[Generation], lengths: Lengths) -> dict[str, float]:
    decode_s = median(generation.decode_s for generation in generations)
    prefill_s = median(generation.prefill_s for generation in generations)
    return {
        "decode_throughput": batch_size * lengths.num_steps / decode_s,
        "decode_step_ms": 1000 * median(generation.step_s for generation in generations),
        "prefill_throughput": batch_size * lengths.num_prompt_tokens / prefill_s,
    }


def _stage(name: str, turns: Sequence[Turn]) -> dict[str, Any]:
    """`products_ms`: what its products with the weights take alone."""
    return {
        "stage": name,
        "ms": 1000 * median(turn.stages_s[name] for turn in turns),
        "products_ms": 1000 * median(turn.products_s.get(name, 0.0) for turn in turns),
    }


def _compared(name: str, batch_size: int, turns: Sequence[Turn], lengths: Lengths) -> dict[str, Any]:
    others = [turn.others[name] for turn in turns]
    return {
        **_speeds(batch_size, others, lengths),
        "decode_speedup": median(
            other.decode_s / turn.engine.decode_s for turn, other in zip(turns, others, strict=True)
        ),
        "same_tokens": turns[0].engine.output_token_ids == others[0].output_token_ids,
    }
