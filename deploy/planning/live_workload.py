"""What a running deployment serves, from its metrics: how often, and how long."""

import math
from dataclasses import dataclass, replace

from prometheus_client.parser import text_string_to_metric_families

from deploy.planner.goodput.question import Lengths

_NAMES = {
    "num_requests": "vllm:time_to_first_token_seconds_count",
    "prompt_tokens": "vllm:prompt_tokens_total",
    "output_tokens": "vllm:generation_tokens_total",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """Since the router began; `at_s` on the clock of who asked."""

    at_s: float
    num_requests: float = 0.0
    prompt_tokens: float = 0.0
    output_tokens: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveWorkload:
    """`rate` in requests a second; the lengths are means."""

    rate: float
    prompt_tokens: float
    output_tokens: float

    def __str__(self) -> str:
        return (
            f"{self.rate:.3g} requests/s of {self.prompt_tokens:.0f} prompt and {self.output_tokens:.0f} output tokens"
        )


def read_totals(text: str, at_s: float) -> Totals:
    """From the text that /metrics gives."""
    values = dict.fromkeys(_NAMES, 0.0)
    names = {name: field for field, name in _NAMES.items()}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in names:
                values[names[sample.name]] += sample.value
    return replace(Totals(at_s=at_s), **values)


def between(before: Totals, after: Totals, *, least_requests: int = 20) -> LiveWorkload | None:
    """None: too few came to say anything, or the router has begun anew."""
    count = after.num_requests - before.num_requests
    if count < least_requests or after.at_s <= before.at_s:
        return None
    return LiveWorkload(
        rate=count / (after.at_s - before.at_s),
        prompt_tokens=max(1.0, (after.prompt_tokens - before.prompt_tokens) / count),
        output_tokens=max(1.0, (after.output_tokens - before.output_tokens) / count),
    )


def stretched(lengths: Lengths, live: LiveWorkload) -> Lengths:
    """The planned workload's spread around the means as they are."""
    prompts = lengths.prompts * (live.prompt_tokens / float(lengths.prompts.mean()))
    outputs = lengths.outputs * (live.output_tokens / float(lengths.outputs.mean()))
    assert math.isfinite(float(prompts.sum()))
    return Lengths(prompts=prompts.round().clip(1), outputs=outputs.round().clip(1))
