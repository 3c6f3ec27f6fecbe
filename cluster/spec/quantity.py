"""Sizes in memory, as people write them: 268435456, 256MiB, 1.5G; and numbers of things."""

import re
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

_UNITS = {
    "": 1,
    "B": 1,
    **{f"{prefix}{suffix}": 1000**power for power, prefix in enumerate("KMGT", 1) for suffix in ("", "B")},
    **{f"{prefix}i{suffix}": 1024**power for power, prefix in enumerate("KMGT", 1) for suffix in ("", "B")},
}
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)")


def parse_bytes(value: object) -> object:
    """The number of bytes in a quantity; what is no text is left to the schema. ValueError says what is understood."""
    if not isinstance(value, str):
        return value
    match = _QUANTITY.fullmatch(value.strip())
    unit = match and {name.lower(): size for name, size in _UNITS.items()}.get(match[2].lower())
    if not match or not unit:
        raise ValueError(f"{value!r} is no size; write bytes or a number with a unit, such as 512MiB or 2GiB")
    return round(float(match[1]) * unit)


def format_bytes(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.4g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.4g} TiB"


def format_count(number: float, noun: str) -> str:
    """With its noun, which takes an s unless there is just one."""
    amount = str(number) if isinstance(number, int) else f"{number:g}"
    return f"{amount} {noun}{'' if number == 1 else 's'}"


Bytes = Annotated[
    int,
    Field(gt=0),
    BeforeValidator(parse_bytes),
    WithJsonSchema({"anyOf": [{"type": "integer", "exclusiveMinimum": 0}, {"type": "string"}]}),
]
