"""When instances join, as it is typed."""

from collections.abc import Iterable

from deploy.errors import InputError


def parse_start_ups(texts: Iterable[str]) -> dict[str, float]:
    """Seconds by name, of NAME:SECONDS each. InputError."""
    return dict(map(_parse, texts))


def _parse(text: str) -> tuple[str, float]:
    name, _, number = text.rpartition(":")
    try:
        after_s = float(number)
    except ValueError:
        after_s = -1.0
    if not name or not 0.0 <= after_s < float("inf"):
        raise InputError(f"--start-up {text!r} should be NAME:SECONDS, such as decode-0:20")
    return name, after_s
