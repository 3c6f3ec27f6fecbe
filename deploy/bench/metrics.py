"""From outcomes to figures, under the field names of `vllm bench serve`."""

from collections.abc import Sequence

import numpy as np

from deploy.bench.outcome import Outcome

PERCENTILES = (50, 90, 95, 99)
Figures = dict[str, float | int | None]


def summarize(outcomes: Sequence[Outcome], duration_s: float, slos_ms: dict[str, float]) -> Figures:
    """`slos_ms`: limits by the names ttft, tpot and e2el; request_goodput is None without any.

    `second_token` is each request's first ITL: the first token does not wait for the KV to be handed over, it does.
    """
    good = [outcome for outcome in outcomes if outcome.is_success]
    num_input = sum(outcome.num_prompt_tokens for outcome in good)
    num_output = sum(outcome.num_output_tokens for outcome in good)
    num_within = sum(meets(outcome, slos_ms) for outcome in good)
    return {
        "duration": duration_s,
        "completed": len(good),
        "failed": len(outcomes) - len(good),
        "total_input_tokens": num_input,
        "total_output_tokens": num_output,
        "request_throughput": len(good) / duration_s,
        "request_goodput": num_within / duration_s if slos_ms else None,
        "slo_attainment": num_within / len(outcomes) if slos_ms else None,
        "output_throughput": num_output / duration_s,
        "total_token_throughput": (num_input + num_output) / duration_s,
        **_statistics("ttft", [outcome.ttft_s for outcome in good]),
        **_statistics("tpot", [outcome.tpot_s for outcome in good if outcome.tpot_s is not None]),
        **_statistics("itl", [itl_s for outcome in good for itl_s in outcome.itls_s]),
        **_statistics("e2el", [outcome.e2el_s for outcome in good]),
        **_statistics("second_token", [outcome.itls_s[0] for outcome in good if outcome.itls_s]),
    }


def meets(outcome: Outcome, slos_ms: dict[str, float]) -> bool:
    """All limits; a single token meets every tpot."""
    measured_s = {"ttft": outcome.ttft_s, "tpot": outcome.tpot_s or 0.0, "e2el": outcome.e2el_s}
    return all(measured_s[name] * 1000 <= limit for name, limit in slos_ms.items())


def _statistics(name: str, values_s: list[float]) -> Figures:
    values_ms = np.array(values_s) * 1000
    names = ("mean", "median", "std", *(f"p{percentile}" for percentile in PERCENTILES))
    values: list[float | None] = [None] * len(names)
    if values_s:
        moments = (np.mean(values_ms), np.median(values_ms), np.std(values_ms))
        values = [float(value) for value in (*moments, *np.percentile(values_ms, PERCENTILES))]
    return {f"{kind}_{name}_ms": value for kind, value in zip(names, values, strict=True)}
