"""Looking things up by names that people type."""

from collections.abc import Mapping
from typing import TypeVar

Found = TypeVar("Found")


class UnknownName(ValueError):
    """The text lists the names that there are."""


def find_known(what: str, name: str, known: Mapping[str, Found]) -> Found:
    if name in known:
        return known[name]
    raise UnknownName(f"{what} {name!r} is not known; known are {', '.join(sorted(known))}")
