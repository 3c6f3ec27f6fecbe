"""What readers of files in YAML share that no schema describes: keys, numbers and sizes, each problem with its line."""

import re
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

from cluster.spec.problem import Problem, YamlPath
from cluster.spec.quantity import parse_bytes
from cluster.spec.yaml_source import YamlSource

_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(slots=True, kw_only=True)
class Reading:
    """One file being read; `problems` are all that were found so far."""

    source: YamlSource
    problems: list[Problem] = field(default_factory=list)

    def check_kind(self, data: dict[str, Any], kind: str) -> None:
        for key, value in (("apiVersion", "baton/v1"), ("kind", kind)):
            if data.get(key) != value:
                self.wrong((key,), f"is {data.get(key)!r}; should be {value!r}")

    def has_keys(self, entry: Any, path: YamlPath, known: tuple[str, ...], needed: tuple[str, ...] = ()) -> bool:
        """Whether it is a mapping in which no `needed` key is missing; those that are not known are problems too."""
        if not isinstance(entry, dict):
            self.wrong(path, f"should be a mapping with the keys {', '.join(known)}")
            return False
        for key in entry:
            if key not in known:
                self.wrong((*path, str(key)), f"is not known; the keys here are {', '.join(known)}")
        missing = [key for key in needed if entry.get(key) is None]
        for key in missing:
            self.wrong((*path, key), "is missing")
        return not missing

    def number(
        self, entry: dict[str, Any], key: str, path: YamlPath, *, positive: bool = False, whole: bool = False
    ) -> float | None:
        """0 or more; None where it is not given, or is wrong."""
        given = entry.get(key)
        if given is None:
            return None
        number = as_number(given)
        is_one = number is not None and isfinite(number) and not (whole and number != int(number))
        if number is None or not is_one or number < 0 or (positive and number == 0):
            kind = "a whole number" if whole else "a number"
            self.wrong((*path, key), f"is {given!r}; should be {kind}{' above 0' if positive else ', 0 or more'}")
            return None
        return number

    def num_bytes(self, entry: dict[str, Any], key: str, path: YamlPath) -> int | None:
        """As `number`: above 0, and with a unit if it is a text."""
        try:
            given = parse_bytes(entry.get(key))
        except ValueError as error:
            self.wrong((*path, key), str(error))
            return None
        number = self.number({key: given}, key, path, positive=True, whole=True)
        return None if number is None else int(number)

    def wrong(self, path: YamlPath, message: str) -> None:
        """With the line of the innermost part of the path that the file has."""
        lines = self.source.lines
        line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
        self.problems.append(Problem(path=path, message=message, line=line))


def as_number(given: object) -> float | None:
    """1e9 is a text to YAML, which wants 1.0e+9; people write the former."""
    if isinstance(given, str) and _NUMBER.fullmatch(given):
        return float(given)
    return float(given) if isinstance(given, int | float) and not isinstance(given, bool) else None
