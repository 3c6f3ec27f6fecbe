"""Records of a simulation in compact columns, and the figures that `bench serve` makes of them."""

from array import array
from collections.abc import Mapping
from math import log, log1p

import numpy as np
from numpy.typing import NDArray

from deploy.bench.metrics import PERCENTILES, Figures
from deploy.simulator.recorder import RequestRecord

Column = NDArray[np.float64]

# Waits from token to token are counted in bins that are wider by a thousandth each, from a microsecond on.
_FIRST_S = 1e-6
_LOG_STEP = log1p(1e-3)


class Columns:
    """A recorder. 64 bytes a request; of waits between tokens only how many there were of each length, to 0.1 %.

    `num_cut_short`: of those that ended without an error, but with fewer tokens than asked for; they meet no SLO.
    """

    def __init__(self) -> None:
        self._numbers = {
            name: array("d") for name in ("arrival", "first", "second", "last", "prompt", "output", "asked")
        }
        self.errors: dict[int, str] = {}
        self.numbers = array("q")
        self.num_cut_short = 0
        self._waits: dict[int, int] = {}
        self._sum_s = self._sum_squares = 0.0

    # Recorder

    def ended(self, record: RequestRecord) -> None:
        if record.error:
            self.errors[record.number] = record.error
        self.numbers.append(record.number)
        self.num_cut_short += record.is_cut_short
        for name, value in (
            ("arrival", record.arrival_s),
            ("first", record.first_token_s),
            ("second", record.second_token_s),
            ("last", record.last_token_s),
            ("prompt", record.num_prompt_tokens),
            ("output", record.num_output_tokens),
            ("asked", record.num_asked_tokens),
        ):
            self._numbers[name].append(value)

    def waited(self, seconds: float, count: int) -> None:
        key = int(log(max(seconds, _FIRST_S) / _FIRST_S) / _LOG_STEP)
        self._waits[key] = self._waits.get(key, 0) + count
        self._sum_s += seconds * count
        self._sum_squares += seconds * seconds * count

    # What it adds up to

    def __len__(self) -> int:
        return len(self.numbers)

    def column(self, name: str) -> Column:
        """Of those that succeeded, in the order in which they ended."""
        return np.array(self._numbers[name])[self._is_good()]

    def _is_good(self) -> NDArray[np.bool_]:
        return np.array([number not in self.errors for number in self.numbers], bool)

    @property
    def good_numbers(self) -> list[int]:
        return [number for number in self.numbers if number not in self.errors]

    def ttft_s(self) -> Column:
        return self.column("first") - self.column("arrival")

    def e2el_s(self) -> Column:
        return self.column("last") - self.column("arrival")

    def tpot_s(self) -> Column:
        """nan for a single token, which has no time between tokens."""
        gaps = self.column("output") - 1
        return (self.column("last") - self.column("first")) / np.where(gaps > 0, gaps, np.nan)

    def second_token_s(self) -> Column:
        waits = self.column("second") - self.column("first")
        return waits[np.isfinite(waits)]

    def attainment(self, slos_ms: Mapping[str, float]) -> float:
        """Of all requests, those included that failed or were cut short; a single token meets every tpot."""
        return float(self._meets(slos_ms).sum()) / max(1, len(self))

    def _meets(self, slos_ms: Mapping[str, float]) -> NDArray[np.bool_]:
        measured = {"ttft": self.ttft_s(), "tpot": np.nan_to_num(self.tpot_s(), nan=0.0), "e2el": self.e2el_s()}
        meets = self.column("output") >= self.column("asked")
        for name, limit in slos_ms.items():
            meets &= measured[name] * 1000 <= limit
        return meets

    def figures(self, duration_s: float, slos_ms: Mapping[str, float]) -> Figures:
        """The fields of `deploy.bench.metrics.summarize`."""
        num_input, num_output = int(self.column("prompt").sum()), int(self.column("output").sum())
        num_good, num_within = len(self) - len(self.errors), int(self._meets(slos_ms).sum())
        tpots_s = self.tpot_s()
        per_s = 1.0 / duration_s if duration_s else 0.0  # all may have been refused as they came
        return {
            "duration": duration_s,
            "completed": num_good,
            "failed": len(self.errors),
            "total_input_tokens": num_input,
            "total_output_tokens": num_output,
            "request_throughput": num_good * per_s,
            "request_goodput": num_within * per_s if slos_ms else None,
            "slo_attainment": num_within / max(1, len(self)) if slos_ms else None,
            "output_throughput": num_output * per_s,
            "total_token_throughput": (num_input + num_output) * per_s,
            **_statistics("ttft", self.ttft_s()),
            **_statistics("tpot", tpots_s[np.isfinite(tpots_s)]),
            **self._wait_statistics(),
            **_statistics("e2el", self.e2el_s()),
            **_statistics("second_token", self.second_token_s()),
        }

    def _wait_statistics(self) -> Figures:
        keys = np.array(sorted(self._waits))
        names = ("mean_itl_ms", "median_itl_ms", "std_itl_ms", *(f"p{percentile}_itl_ms" for percentile in PERCENTILES))
        if not len(keys):
            return dict.fromkeys(names)
        counts = np.cumsum([self._waits[key] for key in keys])
        total = int(counts[-1])
        mean_s = self._sum_s / total
        deviation_s = max(0.0, self._sum_squares / total - mean_s**2) ** 0.5
        at = [keys[np.searchsorted(counts, share * total / 100)] for share in (50, *PERCENTILES)]
        median, *percentiles = (_FIRST_S * np.exp((np.array(at) + 0.5) * _LOG_STEP)).tolist()
        values = (mean_s, median, deviation_s, *percentiles)
        return {name: 1000 * value for name, value in zip(names, values, strict=True)}


def _statistics(name: str, values_s: Column) -> Figures:
    names = ("mean", "median", "std", *(f"p{percentile}" for percentile in PERCENTILES))
    values: list[float | None] = [None] * len(names)
    if len(values_s):
        values_ms = values_s * 1000
        moments = (np.mean(values_ms), np.median(values_ms), np.std(values_ms))
        values = [float(value) for value in (*moments, *np.percentile(values_ms, PERCENTILES))]
    return {f"{kind}_{name}_ms": value for kind, value in zip(names, values, strict=True)}
