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

from dataclasses import dataclass, field
from itertools import pairwise
from math import isfinite
from typing import Any

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.fit import Residuals
from cluster.latency.fitted import FittedHardware
from cluster.spec.problem import Problem, SpecError, YamlPath
from cluster.spec.quantity import parse_bytes
from cluster.spec.yaml_source import YamlSource, read_yaml

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


@dataclass(slots=True, kw_only=True)
class _Reading:
    source: YamlSource
    problems: list[Problem] = field(default_factory=list)

    def hardware(self) -> FittedHardware | None:
        data = self.source.data
        if not self._keys(data, (), _KEYS, _NEEDED):
            return None
        for key, value in (("apiVersion", "baton/v1"), ("kind", "LatencyModel")):
            if data[key] != value:
                self._wrong((key,), f"is {data[key]!r}; should be {value!r}")
        prefill, decode, residuals = self._prefill(data), self._decode(data), self._residuals(data)
        token_bytes = self._number(data, "kv_bytes_per_token", (), positive=True)
        tp = self._number(data, "tensor_parallel_size", (), 1.0, positive=True, whole=True)
        memory = self._bytes(data, "kv_memory_bytes")
        if self.problems:
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
        if not self._keys(data["prefill"], path, PREFILL_KEYS, PREFILL_KEYS):
            return PrefillCost(fixed_s=0.0, s_per_token=0.0, s_per_square=0.0)
        found = {key: self._number(data["prefill"], key, path) for key in PREFILL_KEYS}
        self._some(found, path)
        return PrefillCost(**found)

    def _decode(self, data: dict[str, Any]) -> tuple[DecodeCost, ...]:
        entries, costs = data["decode"], []
        if not isinstance(entries, list) or not entries:
            self._wrong(("decode",), f"should be a list of mappings with the keys {', '.join(DECODE_KEYS)}")
            return ()
        for index, entry in enumerate(entries):
            path: YamlPath = ("decode", index)
            if self._keys(entry, path, DECODE_KEYS, DECODE_KEYS):
                found = {key: self._number(entry, key, path) for key in DECODE_KEYS[1:]}
                self._some(found, path)
                from_batch = int(self._number(entry, "from_batch", path, whole=True))
                costs.append(DecodeCost(from_batch=from_batch, **found))
        if len(costs) == len(entries):
            self._rising([cost.from_batch for cost in costs])
        return tuple(costs)

    def _rising(self, from_batch: list[int]) -> None:
        if from_batch[0] != 0:
            self._wrong(("decode", 0, "from_batch"), f"is {from_batch[0]}; the first entry should begin at 0")
        for index, (before, after) in enumerate(pairwise(from_batch), 1):
            if after <= before:
                self._wrong(
                    ("decode", index, "from_batch"), f"is {after}; should be more than {before}, of the entry before"
                )

    def _residuals(self, data: dict[str, Any]) -> dict[str, Residuals]:
        found = {}
        kinds = data.get("residuals", {})
        if not isinstance(kinds, dict):
            self._wrong(("residuals",), "should be a mapping by kind of step")
            return {}
        for kind, entry in kinds.items():
            path: YamlPath = ("residuals", str(kind))
            if self._keys(entry, path, _RESIDUAL_KEYS, _RESIDUAL_KEYS):
                values = {key: self._number(entry, key, path) for key in _RESIDUAL_KEYS[1:]}
                found[str(kind)] = Residuals(
                    num_steps=int(self._number(entry, "num_steps", path, whole=True)), **values
                )
        return found

    def _keys(self, value: Any, path: YamlPath, known: tuple[str, ...], needed: tuple[str, ...]) -> bool:
        if not isinstance(value, dict):
            self._wrong(path, f"should be a mapping with the keys {', '.join(known)}")
            return False
        for key in value:
            if key not in known:
                self._wrong((*path, str(key)), f"is not known; the keys here are {', '.join(known)}")
        missing = [key for key in needed if value.get(key) is None]
        for key in missing:
            self._wrong((*path, key), "is missing")
        return not missing

    def _number(
        self,
        data: dict[str, Any],
        key: str,
        path: YamlPath,
        default: float = 0.0,
        *,
        positive: bool = False,
        whole: bool = False,
    ) -> float:
        """YAML takes 1e-5 for text, as it has no point; people do not."""
        value = data.get(key, default)
        try:
            number = float(value) if not isinstance(value, bool) else float("nan")
        except (TypeError, ValueError):
            number = float("nan")
        if not isfinite(number) or number < 0 or (positive and number == 0) or (whole and number != int(number)):
            kind = "a whole number" if whole else "a number"
            self._wrong((*path, key), f"is {value!r}; should be {kind}{' above 0' if positive else ', 0 or more'}")
            return default
        return number

    def _bytes(self, data: dict[str, Any], key: str) -> int:
        try:
            value = parse_bytes(data[key])
        except ValueError as error:
            self._wrong((key,), str(error))
            return 1
        return int(self._number({key: value}, key, (), positive=True))

    def _some(self, costs: dict[str, float], path: YamlPath) -> None:
        if not any(costs.values()):
            self._wrong(path, "is 0 in all: a step cannot take no time")

    def _wrong(self, path: YamlPath, message: str) -> None:
        line = next(
            (self.source.lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in self.source.lines), None
        )
        self.problems.append(Problem(path=path, message=message, line=line))
