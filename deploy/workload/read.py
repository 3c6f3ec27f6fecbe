"""Traces from files, plain or gzipped: CSV or JSON under the column names in use, and Mooncake's JSON lines."""

import gzip
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from deploy.workload.mooncake import read_json_lines, spread_ticks
from deploy.workload.request import WorkloadError, WorkloadRequest
from deploy.workload.tables import Row, WrongEntry, read_csv, read_json


def read_workload(file: Path, limit: int | None = None) -> list[WorkloadRequest]:
    """The first `limit` requests, from 0 s on; WorkloadError names the file, and the line of what is wrong in it.

    Times have to be in order and none below 0, lengths above 0. BurstGPT's failures, without response, are left out.
    """
    try:
        with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
            if ".jsonl" in file.suffixes:
                requests = spread_ticks(_in_order(list(read_json_lines(lines))))
            else:
                requests = _in_order(list((read_json if ".json" in file.suffixes else read_csv)(lines)))
    except WrongEntry as error:
        raise WorkloadError(f"{file}, {error}") from None
    except (OSError, EOFError, UnicodeDecodeError) as error:
        raise WorkloadError(f"{file} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not requests:
        raise WorkloadError(f"{file} holds no request")
    return _from_zero(requests)[:limit]


def _in_order(rows: list[Row]) -> list[WorkloadRequest]:
    """WrongEntry: one comes before the one above it, or before 0 s. Those without times are in order as they are."""
    for place, request in rows:
        if request.arrival_s is not None and request.arrival_s < 0.0:
            raise WrongEntry(f"{place}: arrives at {request.arrival_s:g} s; times count from 0 on")
    for (_, before), (place, after) in pairwise(rows):
        if after.arrival_s is not None and before.arrival_s is not None and after.arrival_s < before.arrival_s:
            earlier_s = before.arrival_s - after.arrival_s
            raise WrongEntry(f"{place}: arrives {earlier_s:g} s before the request above it; sort the file by time")
    return [request for _, request in rows]


def _from_zero(requests: list[WorkloadRequest]) -> list[WorkloadRequest]:
    start_s = requests[0].arrival_s
    if start_s is None:
        return requests
    return [replace(request, arrival_s=(request.arrival_s or 0.0) - start_s) for request in requests]
