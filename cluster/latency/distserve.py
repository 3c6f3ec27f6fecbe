"""OPT on A100s as DistServe measured it (github.com/LLMServe/DistServe, Apache-2.0): coefficients and KV capacities.

Nothing is put together here: what was not measured is not known. `data/distserve_a100-80g.json` holds their figures.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any

from cluster.latency.bundled import read_json
from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost, StageCost
from cluster.latency.hardware import DoesNotFit, Parallelism, UnknownParallelism
from cluster.latency.known import UnknownName

GPU = "distserve-a100"


@dataclass(frozen=True, slots=True)
class DistServeHardware:
    """`model_name`: "opt-13b" or "opt-66b".

    `with_call_overhead`: also what their simulator adds to each step: 2 ms and 0.1 µs per token of context in the first
    stage, and as many milliseconds as there are stages to each stage of a prefill.
    """

    model_name: str
    with_call_overhead: bool = False

    def __post_init__(self) -> None:
        if self.model_name not in _figures()["models"]:
            known = ", ".join(_figures()["models"])
            raise UnknownName(f"model shape {self.model_name!r}: DistServe has no figures for it, only for {known}")

    @property
    def name(self) -> str:
        return f"{GPU}/{self.model_name}"

    @property
    def kv_bytes_per_token(self) -> float:
        return float(self._model["kv_bytes_per_token"])

    def parallelisms(self) -> list[Parallelism]:
        return sorted(
            Parallelism(int(tp), int(pp))
            for tp in self._model["coefficients_ms"]
            for pp in self._model["num_kv_tokens"].get(tp, ())
        )

    def model(self, parallelism: Parallelism) -> CoefficientModel:
        self._check(parallelism)
        coefficients = self._model["coefficients_ms"][str(parallelism.tp)]
        fixed, per_token, per_square = (value / 1e3 for value in coefficients["prefill"])
        return CoefficientModel(
            prefill=PrefillCost(fixed_s=fixed, s_per_token=per_token, s_per_square=per_square),
            decode=tuple(
                DecodeCost(
                    from_batch=from_batch,
                    fixed_s=fixed / 1e3,
                    s_per_context_token=per_token / 1e3,
                    s_per_sequence=per_sequence / 1e3,
                )
                for from_batch, (fixed, per_token, per_sequence) in (
                    (0, coefficients["decode_small"]),
                    (coefficients["large_from_batch"], coefficients["decode_large"]),
                )
            ),
            num_stages=parallelism.pp,
            stage=_call_overhead(parallelism.pp) if self.with_call_overhead else StageCost(),
        )

    def num_kv_tokens(self, parallelism: Parallelism) -> int:
        capacities: dict[str, dict[str, int]] = self._model["num_kv_tokens"]
        found = capacities.get(str(parallelism.tp), {}).get(str(parallelism.pp))
        if found is not None:
            return found
        if parallelism == Parallelism(1, 1):
            raise DoesNotFit(self._too_large())
        raise UnknownParallelism(f"{self.name}: DistServe has no KV capacity for {parallelism}; {self._known()}")

    @property
    def _model(self) -> dict[str, Any]:
        found: dict[str, Any] = _figures()["models"][self.model_name]
        return found

    def _check(self, parallelism: Parallelism) -> None:
        if str(parallelism.tp) not in self._model["coefficients_ms"] or parallelism.pp < 1:
            raise UnknownParallelism(f"{self.name}: DistServe did not measure {parallelism}; {self._known()}")

    def _too_large(self) -> str:
        weights, memory = self._model["num_parameters"] * 2 / 1e9, _figures()["gpu_memory_bytes"] / 1e9
        return (
            f"{self.name} at TP1: weights of {weights:.1f} GB do not fit into one GPU's {memory:.1f} GB "
            f"({weights - memory:.1f} GB too many)"
        )

    def _known(self) -> str:
        return "known are " + ", ".join(map(str, self.parallelisms()))


def _call_overhead(num_stages: int) -> StageCost:
    return StageCost(prefill_s=num_stages * 1e-3, call_s=2e-3, call_s_per_token=1e-7)


@cache
def _figures() -> dict[str, Any]:
    return read_json("distserve_a100-80g.json")
