"""Named places where tests make things go wrong.

The code says `failpoints.hit("links.receive.record", record)`; nothing happens unless a test armed that name, in its
own process (`armed`, `arm`), or in a child: `BATON_FAILPOINTS="links.receive.record=flip,links.source.batch=cut@2"`.
"""

import os
import re
import signal
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


def are_armed() -> bool:
    """Whether any is: for places that would have to find out first which they are."""
    return bool(_armed)


def arm(name: str, action: Action) -> None:
    _armed[name] = action


def disarm(name: str) -> None:
    _armed.pop(name, None)


@contextmanager
def armed(name: str, action: Action) -> Iterator[None]:
    arm(name, action)
    try:
        yield
    finally:
        disarm(name)


def flip(record: Any, *_: Any) -> None:
    """Damages the first byte."""
    record[0] ^= 0xFF


def cut(*_: Any) -> None:
    raise ConnectionAbortedError("cut by a failpoint")


def kill(*_: Any) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def stall(seconds: float) -> Action:
    return lambda *_: time.sleep(seconds)


def at(number: int, action: Action) -> Action:
    """Only the `number`th time that somebody comes by; the first is 1."""
    num_hits = 0

    def count(*context: Any) -> None:
        nonlocal num_hits
        num_hits += 1
        if num_hits == number:
            action(*context)

    return count


_ACTIONS = {"flip": flip, "cut": cut, "kill": kill}


def arm_from_environment(value: str) -> None:
    """`NAME=flip|cut|kill|stall:SECONDS`, separated by commas; with `@N`, at the Nth hit only.

    A name or action that reads otherwise is a ValueError.
    """
    for entry in filter(None, value.split(",")):
        name, _, spec = entry.partition("=")
        arm(name, _action(entry, spec))


def _action(entry: str, spec: str) -> Action:
    if written := re.fullmatch(r"(?:(flip|cut|kill)|stall:([0-9.]+))(?:@([1-9][0-9]*))?", spec):
        kind, seconds, number = written.groups()
        action = _ACTIONS[kind] if kind else stall(float(seconds))
        return at(int(number), action) if number else action
    raise ValueError(f"BATON_FAILPOINTS: {entry!r} is not NAME=flip, cut, kill or stall:SECONDS, with or without @N")


arm_from_environment(os.environ.get("BATON_FAILPOINTS", ""))
