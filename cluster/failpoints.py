"""Named places where tests make things go wrong.

The code says `failpoints.hit("links.receive.record", record)`; nothing happens unless a test armed that name, in its
own process (`armed`) or in a child through `BATON_FAILPOINTS="links.receive.record=flip,links.source.batch=stall:30"`.
"""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

Action = Callable[..., None]

_armed: dict[str, Action] = {}


def hit(name: str, *context: Any) -> None:
    """Runs the action armed under this name, with what the place has to offer; usually none is."""
    if _armed and (action := _armed.get(name)) is not None:
        action(*context)


@contextmanager
def armed(name: str, action: Action) -> Iterator[None]:
    _armed[name] = action
    try:
        yield
    finally:
        del _armed[name]


def flip(record: Any, *_: Any) -> None:
    """Damages the first byte."""
    record[0] ^= 0xFF


def cut(*_: Any) -> None:
    raise ConnectionAbortedError("cut by a failpoint")


def stall(seconds: float) -> Action:
    return lambda *_: time.sleep(seconds)


def arm_from_environment(value: str) -> None:
    """`NAME=flip|cut|stall:SECONDS`, separated by commas; a name or action that reads otherwise is a ValueError."""
    for entry in filter(None, value.split(",")):
        name, _, spec = entry.partition("=")
        kind, _, argument = spec.partition(":")
        if kind == "stall" and argument:
            _armed[name] = stall(float(argument))
        elif kind in ("flip", "cut") and not argument:
            _armed[name] = {"flip": flip, "cut": cut}[kind]
        else:
            raise ValueError(f"BATON_FAILPOINTS: {entry!r} is not NAME=flip, NAME=cut or NAME=stall:SECONDS")


arm_from_environment(os.environ.get("BATON_FAILPOINTS", ""))
