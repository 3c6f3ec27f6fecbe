"""Fitted latency models as text, and everything that can be wrong with it.

apiVersion: baton/v1
kind: LatencyModel
model_name: llama-54m
device: AMD EPYC 7B13, 1 thread
dtype: float32
tensor_parallel_size: 1
kv_bytes_per_token: 8192
kv_memory_bytes: 256MiB
prefill: {fixed_s: 0.02, s_per_token: 1.0e-3, s_per_square: 2.0e-7}
decode:
  - {from_batch: 0, fixed_s: 0.015, s_per_context_token: 1.5e-6, s_per_sequence: 1.0e-3}
residuals:      # may be left out, as device and dtype
  prefill: {num_steps: 20, median: 0.02, p90: 0.05, largest: 0.08}
"""

from itertools import pairwise
from typing import Any

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.fit import Residuals
from cluster.latency.fitted import FittedHardware
from cluster.spec.problem import SpecError, YamlPath
from cluster.spec.reading import Reading
from cluster.spec.yaml_source import read_yaml

PREFILL_KEYS = ("fixed_s", "s_per_token", "s_per_square")
DECODE_KEYS = ("from_batch", "fixed_s", "s_per_context_token", "s_per_sequence")
_RESIDUAL_KEYS = ("num_steps", "median", "p90", "largest")
_NEEDED = ("apiVersion", "kind", "model_name", "kv_bytes_per_token", "kv_memory_bytes", "prefill", "decode")
_KEYS = (*_NEEDED, "device", "dtype", "tensor_parallel_size", "residuals")


def read_fitted(text: str, name: str) -> FittedHardware:
    """SpecError with all problems found, each with its field and line. `name`: of the file."""
    reading = _Reading(source=read_yaml(text, name))
    hardware = reading.hardware()
    if reading.problems or hardware is None:
        raise SpecError(name, reading.problems)
    return hardware


class _Reading(Reading):
    def hardware(self) -> FittedHardware | None:
        data = self.source.data
        if not self.has_keys(data, (), _KEYS, _NEEDED):
            return None
        self.check_kind(data, "LatencyModel")
        prefill, decode, residuals = self._prefill(data), self._decode(data), self._residuals(data)
        token_bytes = self.number(data, "kv_bytes_per_token", (), positive=True)
        given_tp = {"tensor_parallel_size": 1} if data.get("tensor_parallel_size") is None else data
        tp = self.number(given_tp, "tensor_parallel_size", (), positive=True, whole=True)
        memory = self.num_bytes(data, "kv_memory_bytes", ())
        if self.problems or token_bytes is None or tp is None or memory is None:
            return None
        return FittedHardware(
            model_name=str(data["model_name"]),
            device=str(data.get("device", "unknown device")),
            dtype=str(data.get("dtype", "")),
            kv_bytes_per_token=token_bytes,
            kv_memory_bytes=memory,
            tensor_parallel_size=int(tp),
            coefficients=CoefficientModel(prefill=prefill, decode=decode),
            residuals=residuals,
        )

    def _prefill(self, data: dict[str, Any]) -> PrefillCost:
        path: YamlPath = ("prefill",)
        if not self.has_keys(data["prefill"], path, PREFILL_KEYS, PREFILL_KEYS):
            return PrefillCost(fixed_s=0.0, s_per_token=0.0, s_per_square=0.0)
        found = self._each(data["prefill"], PREFILL_KEYS, path)
        self._some(found, path)
        return PrefillCost(**found)

    def _decode(self, data: dict[str, Any]) -> tuple[DecodeCost, ...]:
        entries, costs = data["decode"], []
        if not isinstance(entries, list) or not entries:
            self.wrong(("decode",), f"should be a list of mappings with the keys {', '.join(DECODE_KEYS)}")
            return ()
        for index, entry in enumerate(entries):
            path: YamlPath = ("decode", index)
            if self.has_keys(entry, path, DECODE_KEYS, DECODE_KEYS):
                found = self._each(entry, DECODE_KEYS[1:], path)
                self._some(found, path)
                from_batch = int(self.number(entry, "from_batch", path, whole=True) or 0)
                costs.append(DecodeCost(from_batch=from_batch, **found))
        if len(costs) == len(entries):
            self._rising([cost.from_batch for cost in costs])
        return tuple(costs)

    def _rising(self, from_batch: list[int]) -> None:
        if from_batch[0] != 0:
            self.wrong(("decode", 0, "from_batch"), f"is {from_batch[0]}; the first entry should begin at 0")
        for index, (before, after) in enumerate(pairwise(from_batch), 1):
            if after <= before:
                self.wrong(
                    ("decode", index, "from_batch"), f"is {after}; should be more than {before}, of the entry before"
                )

    def _residuals(self, data: dict[str, Any]) -> dict[str, Residuals]:
        found = {}
        kinds = data.get("residuals", {})
        if not isinstance(kinds, dict):
            self.wrong(("residuals",), "should be a mapping by kind of step")
            return {}
        for kind, entry in kinds.items():
            path: YamlPath = ("residuals", str(kind))
            if self.has_keys(entry, path, _RESIDUAL_KEYS, _RESIDUAL_KEYS):
                num_steps = int(self.number(entry, "num_steps", path, whole=True) or 0)
                found[str(kind)] = Residuals(num_steps=num_steps, **self._each(entry, _RESIDUAL_KEYS[1:], path))
        return found

    def _each(self, entry: dict[str, Any], keys: tuple[str, ...], path: YamlPath) -> dict[str, float]:
        """0 for what is wrong."""
        return {key: self.number(entry, key, path) or 0.0 for key in keys}

    def _some(self, costs: dict[str, float], path: YamlPath) -> None:
        if not any(costs.values()):
            self.wrong(path, "is 0 in all: a step cannot take no time")
