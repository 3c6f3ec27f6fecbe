"""`python -m tests.faults [PATTERN...]`: every fault at every step of a handover, on a real cluster; prints the table.

With patterns, only the cells whose names contain one of them. Exits with 1 when one fails.
"""

import asyncio
import logging
import os
import sys
import time
from collections.abc import Sequence

from tests.faults.cells import STEPS, Cell, Move, all_cells
from tests.faults.faulty_cluster import FaultyCluster
from tests.faults.run_cell import Outcome, run_cell
from tests.faults.stream import Request, WentWrong, request_of, undisturbed

Results = dict[Cell, Outcome | str]


async def run(cells: Sequence[Cell]) -> Results:
    requests = {cell: request_of(number, cell.move) for number, cell in enumerate(cells)}
    expected = await undisturbed(requests.values())
    results: Results = {}
    waiting = list(cells)
    while waiting:  # one that fails may leave anything behind: the others get another cluster
        async with FaultyCluster() as cluster:
            while waiting:
                cell = waiting.pop(0)
                results[cell] = await _result(cluster, cell, requests[cell], expected[requests[cell]])
                _say(cell, results[cell])
                if isinstance(results[cell], str):
                    break
    return results


async def _result(cluster: FaultyCluster, cell: Cell, request: Request, expected: list[int]) -> Outcome | str:
    try:
        return await run_cell(cluster, cell, request, expected)
    except (WentWrong, TimeoutError, OSError) as error:
        return f"{type(error).__name__}: {error}"


def _say(cell: Cell, result: Outcome | str) -> None:
    text = f"FAILED: {result}" if isinstance(result, str) else f"gap {result.gap_s * 1000:5.0f} ms  {result.path}"
    print(f"{cell!s:<60} {text}", flush=True)


def _table(results: Results, move: Move) -> str:
    mine = {(cell.step, cell.column): result for cell, result in results.items() if cell.move is move}
    columns = list(dict.fromkeys(cell.column for cell in all_cells()))
    rows = [["gap in ms", *columns]]
    for step in STEPS:
        rows.append([step, *(_entry(mine.get((step, column))) for column in columns)])
    return "\n".join("| " + " | ".join(row) + " |" for row in (rows[0], ["---"] * len(rows[0]), *rows[1:]))


def _entry(result: Outcome | str | None) -> str:
    if result is None:
        return "-"
    return "FAILED" if isinstance(result, str) else f"{result.gap_s * 1000:.0f}"


def main() -> None:
    logging.disable(logging.CRITICAL)
    patterns = sys.argv[1:] or [""]
    chosen = [cell for cell in all_cells() if any(pattern in str(cell) for pattern in patterns)]
    cells = [cell for cell in chosen if not cell.why_not]
    start_s = time.monotonic()
    results = asyncio.run(run(cells))
    for move in Move:
        print(f"\n{move.value}\n\n{_table(results, move)}")
    reasons = {f"{cell.step}, {cell.column}: {cell.why_not}" for cell in chosen if cell.why_not}
    print("\nLeft out, for it makes no sense:", *sorted(reasons), sep="\n  ")
    failed = [cell for cell, result in results.items() if isinstance(result, str)]
    print(f"\n{len(results)} cells, {len(failed)} failed, {time.monotonic() - start_s:.0f} s, {os.cpu_count()} cores")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
