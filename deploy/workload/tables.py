"""Traces with a row a request, as CSV or as a JSON list of objects."""

import csv
import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from math import isfinite
from typing import TextIO

from deploy.workload.request import WorkloadRequest

# What Azure, BurstGPT, DistServe, etalon and HumanEval call the same three things, in this order of preference.
COLUMNS = {
    "arrival": ("timestamp", "start_time", "arrival_time", "arrived_at", "arrival_s"),
    "prompt": ("contexttokens", "request tokens", "prompt_len", "num_prefill_tokens", "prompt_tokens", "input_length"),
    "output": (
        "generatedtokens",
        "response tokens",
        "output_len",
        "num_decode_tokens",
        "output_tokens",
        "canonical_solution_tokens",
        "output_length",
    ),
}
# BurstGPT keeps requests that failed, and says that they are those without response.
_OUTPUT_WITH_FAILURES = "response tokens"

_TOO_MANY = "\0"  # no column is called so

Row = tuple[str, WorkloadRequest]
"""A request, and its place in the file."""

Entry = Mapping[str, object]
"""What the file says of a request, by its columns."""


class WrongEntry(ValueError):
    """The place in the file, and what is wrong there."""


def read_csv(lines: TextIO) -> Iterator[Row]:
    rows = csv.DictReader(lines, restkey=_TOO_MANY)
    try:
        if rows.fieldnames is None:
            return
        columns = find_columns("line 1", rows.fieldnames)
        for row in rows:
            if _TOO_MANY in row:
                given, expected = len(rows.fieldnames) + len(row[_TOO_MANY]), len(rows.fieldnames)
                raise WrongEntry(f"line {rows.line_num}: {given} values, but {expected} columns")
            yield from _row(f"line {rows.line_num}", row, columns)
    except csv.Error as error:
        raise WrongEntry(f"line {rows.line_num}: {error}") from None


def read_json(lines: TextIO) -> Iterator[Row]:
    text = lines.read()
    if not text.strip():
        return
    try:
        entries = json.loads(text)
    except json.JSONDecodeError as error:
        raise WrongEntry(f"line {error.lineno}: {error.msg}") from None
    if not isinstance(entries, list):
        raise WrongEntry("line 1: should be a list with an object for each request")
    for number, entry in enumerate(entries, 1):
        place = f"entry {number}"
        if not isinstance(entry, dict):
            raise WrongEntry(f"{place}: {entry!r} is no object")
        yield from _row(place, entry, find_columns(place, entry))


def find_columns(place: str, header: Iterable[str]) -> dict[str, str]:
    """The file's column for each thing in COLUMNS; only the arrival may be absent."""
    given = {name.strip().lower(): name for name in header}
    found = {kind: next((given[name] for name in names if name in given), None) for kind, names in COLUMNS.items()}
    for kind in ("prompt", "output"):
        if found[kind] is None:
            expected = ", ".join(COLUMNS[kind])
            raise WrongEntry(
                f"{place}: no column of {kind} lengths among {list(given.values())}; expected one of {expected}"
            )
    return {kind: column for kind, column in found.items() if column is not None}


def _row(place: str, row: Entry, columns: Mapping[str, str]) -> Iterator[Row]:
    try:
        has_failures = columns["output"].strip().lower() == _OUTPUT_WITH_FAILURES
        if has_failures and parse_count(row, columns["output"]) == 0:
            return
        request = WorkloadRequest(
            arrival_s=parse_time(row, columns["arrival"]) if "arrival" in columns else None,
            num_prompt_tokens=parse_length("prompt", row, columns["prompt"]),
            num_output_tokens=parse_length("output", row, columns["output"]),
        )
    except ValueError as error:
        raise WrongEntry(f"{place}: {error}") from None
    yield place, request


def parse_time(row: Entry, column: str) -> float:
    """Seconds; a number of them, or a date and time, which are UTC's unless they say what else."""
    value = _value(row, column)
    try:
        time_s = _seconds(str(value))
    except ValueError:
        raise ValueError(f"{column}: {value!r} is no time") from None
    return time_s


def parse_count(row: Entry, column: str) -> int:
    return whole_number(_value(row, column), column)


def whole_number(value: object, column: str) -> int:
    try:
        count = int(str(value))
    except ValueError:
        raise ValueError(f"{column}: {value!r} is no whole number") from None
    if count < 0:
        raise ValueError(f"{column}: {count} is below 0")
    return count


def parse_length(what: str, row: Entry, column: str) -> int:
    if not (length := parse_count(row, column)):
        raise ValueError(f"{column}: {'an' if what == 'output' else 'a'} {what} of 0 tokens")
    return length


def _value(row: Entry, column: str) -> object:
    """CSV rows that are too short have None instead."""
    if (value := row.get(column)) is None or value == "":
        raise ValueError(f"{column} is missing")
    return value


def _seconds(text: str) -> float:
    try:
        time_s = float(text)
    except ValueError:
        moment = datetime.fromisoformat(text)
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    if not isfinite(time_s):
        raise ValueError(text)
    return time_s
