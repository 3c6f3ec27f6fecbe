"""Mooncake's traces: a JSON object a line, hashes of shared prefixes, and a clock that ticks every few seconds."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import TextIO

from deploy.workload.request import WorkloadRequest
from deploy.workload.tables import Entry, Row, WrongEntry, parse_length, parse_time, whole_number


def read_json_lines(lines: TextIO) -> Iterator[Row]:
    for number, line in enumerate(lines, 1):
        place = f"line {number}"
        try:
            yield place, _request(json.loads(line))
        except json.JSONDecodeError as error:
            raise WrongEntry(f"{place}: {error.msg}") from None
        except ValueError as error:
            raise WrongEntry(f"{place}: {error}") from None


def _request(entry: object) -> WorkloadRequest:
    """ValueError names the field."""
    if not isinstance(entry, dict):
        raise ValueError(f"{entry!r} is no object")
    return WorkloadRequest(
        arrival_s=parse_time(entry, "timestamp") / 1000,
        num_prompt_tokens=parse_length("prompt", entry, "input_length"),
        num_output_tokens=parse_length("output", entry, "output_length"),
        hash_ids=_hash_ids(entry),
    )


def _hash_ids(entry: Entry) -> tuple[int, ...]:
    found = entry.get("hash_ids", [])
    if not isinstance(found, list):
        raise ValueError(f"hash_ids: {found!r} is no list")
    return tuple(whole_number(each, "hash_ids") for each in found)


def spread_ticks(requests: Sequence[WorkloadRequest]) -> list[WorkloadRequest]:
    """The requests of one tick, evenly until the next one; they are in order."""
    if not requests:
        return []
    ticks = [(tick_s or 0.0, list(same)) for tick_s, same in groupby(requests, key=lambda request: request.arrival_s)]
    gaps_s = [after - before for (before, _), (after, _) in pairwise(ticks)]
    return [
        replace(request, arrival_s=tick_s + gap_s * index / len(same))
        for (tick_s, same), gap_s in zip(ticks, [*gaps_s, *(gaps_s[-1:] or [0.0])], strict=True)
        for index, request in enumerate(same)
    ]
