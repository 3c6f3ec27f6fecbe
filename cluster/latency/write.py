"""Fitted latency models as text that people read and edit; `read.py` says what it looks like, and reads it back."""

from collections.abc import Iterator

from cluster.latency.fit import Residuals
from cluster.latency.fitted import FittedHardware
from cluster.latency.read import DECODE_KEYS, PREFILL_KEYS


def format_fitted(hardware: FittedHardware) -> str:
    return "\n".join(_lines(hardware)) + "\n"


def _lines(hardware: FittedHardware) -> Iterator[str]:
    model = hardware.coefficients
    yield "# How long steps take, in seconds: written by `baton profile`."
    yield "#   prompts  fixed_s + s_per_token x tokens + s_per_square x sum of (end^2 - start^2) of their chunks"
    yield "#   decodes  fixed_s + s_per_context_token x tokens of KV + s_per_sequence x sequences"
    yield "#   both     the greater fixed_s, and what either adds"
    yield "apiVersion: baton/v1"
    yield "kind: LatencyModel"
    for key in ("model_name", "device", "dtype"):
        yield f'{key}: "{_escaped(getattr(hardware, key))}"'
    yield f"tensor_parallel_size: {hardware.tensor_parallel_size}"
    yield f"kv_bytes_per_token: {_number(hardware.kv_bytes_per_token)}"
    yield f"kv_memory_bytes: {hardware.kv_memory_bytes}"
    yield f"prefill: {_mapping({key: getattr(model.prefill, key) for key in PREFILL_KEYS})}"
    yield "decode:  # from so many sequences on"
    for cost in model.decode:
        yield f"  - {_mapping({key: getattr(cost, key) for key in DECODE_KEYS})}"
    if hardware.residuals:
        yield "residuals:  # |model - measured| / measured"
        for kind, found in hardware.residuals.items():
            yield f"  {kind}: {_mapping({key: getattr(found, key) for key in Residuals.__slots__})}"


def _mapping(values: dict[str, float]) -> str:
    return "{" + ", ".join(f"{key}: {_number(value)}" for key, value in values.items()) + "}"


def _number(value: float) -> str:
    """To what measuring can tell; YAML wants a point before an exponent."""
    if value == int(value) and abs(value) < 1e12:
        return str(int(value))
    text = f"{value:.6g}"
    return text.replace("e", ".0e") if "e" in text and "." not in text else text


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
