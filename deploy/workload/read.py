"""Traces from files, plain or gzipped: CSV under the column names in use, and Mooncake's JSON lines."""

import csv
import gzip
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from itertools import groupby, pairwise
from pathlib import Path

from deploy.workload.request import WorkloadError, WorkloadRequest

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


def read_workload(file: Path, limit: int | None = None) -> list[WorkloadRequest]:
    """The first `limit` requests in order of arrival, from 0 s on; rows without output (failures) are left out."""
    reader = _read_jsonl if ".jsonl" in file.suffixes else _read_csv
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            requests = [request for request in reader(file, lines) if request.num_output_tokens > 0]
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not requests:
        raise WorkloadError(f"{file} holds no request")
    return _from_zero(requests)[:limit]


def _from_zero(requests: list[WorkloadRequest]) -> list[WorkloadRequest]:
    if requests[0].arrival_s is None:
        return requests
    requests = sorted(requests, key=lambda request: request.arrival_s or 0.0)
    start_s = requests[0].arrival_s or 0.0
    return [replace(request, arrival_s=(request.arrival_s or 0.0) - start_s) for request in requests]


def _read_csv(file: Path, lines: Iterator[str]) -> Iterator[WorkloadRequest]:
    rows = csv.DictReader(lines)
    columns = _find_columns(file, list(rows.fieldnames or ()))
    for row in rows:
        try:
            yield WorkloadRequest(
                arrival_s=_parse_time(row[columns["arrival"]]) if "arrival" in columns else None,
                num_prompt_tokens=_positive(row[columns["prompt"]]),
                num_output_tokens=_count(row[columns["output"]]),
            )
        except (ValueError, TypeError) as error:
            raise WorkloadError(f"{file}, line {rows.line_num}: {error}") from None


def _find_columns(file: Path, header: list[str]) -> dict[str, str]:
    """The file's column for each thing in COLUMNS; only the arrival may be absent."""
    given = {name.strip().lower(): name for name in header}
    found = {kind: next((given[name] for name in names if name in given), None) for kind, names in COLUMNS.items()}
    for kind in ("prompt", "output"):
        if found[kind] is None:
            expected = ", ".join(COLUMNS[kind])
            raise WorkloadError(
                f"{file}, line 1: no column of {kind} lengths among {header}; expected one of {expected}"
            )
    return {kind: column for kind, column in found.items() if column is not None}


def _parse_time(text: str) -> float:
    """Seconds; a number of them, or a date and time."""
    try:
        return float(text)
    except ValueError:
        return datetime.fromisoformat(text).timestamp()


def _count(value: object) -> int:
    count = int(str(value))
    if count < 0:
        raise ValueError(f"a length of {count} tokens")
    return count


def _positive(value: object) -> int:
    if not (count := _count(value)):
        raise ValueError("a prompt of 0 tokens")
    return count


def _read_jsonl(file: Path, lines: Iterator[str]) -> Iterator[WorkloadRequest]:
    requests = []
    for number, line in enumerate(lines, 1):
        try:
            entry = json.loads(line)
            requests.append(
                WorkloadRequest(
                    arrival_s=float(entry["timestamp"]) / 1000,
                    num_prompt_tokens=_positive(entry["input_length"]),
                    num_output_tokens=_count(entry["output_length"]),
                    hash_ids=tuple(map(_count, entry.get("hash_ids", ()))),
                )
            )
        except KeyError as error:
            raise WorkloadError(f"{file}, line {number}: {error} is missing") from None
        except (ValueError, TypeError, AttributeError) as error:
            raise WorkloadError(f"{file}, line {number}: {error}") from None
    return _spread_ticks(requests)


def _spread_ticks(requests: list[WorkloadRequest]) -> Iterator[WorkloadRequest]:
    """Mooncake's clock ticks every few seconds: the requests of one tick are spread evenly until the next one."""
    ticks = [(tick_s or 0.0, list(same)) for tick_s, same in groupby(requests, key=lambda request: request.arrival_s)]
    gaps_s = [after - before for (before, _), (after, _) in pairwise(ticks)]
    for (tick_s, same), gap_s in zip(ticks, [*gaps_s, gaps_s[-1] if gaps_s else 0.0], strict=True):
        for index, request in enumerate(same):
            yield replace(request, arrival_s=tick_s + gap_s * index / len(same))
