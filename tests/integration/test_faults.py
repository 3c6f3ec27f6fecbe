"""Twelve cells of `make test-faults` that come to every step of a handover, on one cluster of real processes."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.faults.cells import STEPS, Cell, Fault, Move
from tests.faults.faulty_cluster import FaultyCluster
from tests.faults.run_cell import run_cell
from tests.faults.stream import Request, request_of, undisturbed

pytestmark = pytest.mark.integration

CELLS = [
    Cell(Move.PREFILL, "handover.source.reserve", Fault.ABORT, "client"),
    Cell(Move.LIVE, "handover.source.freeze", Fault.KILL, "source"),
    Cell(Move.LIVE, "handover.source.pass", Fault.DROP, "source"),
    Cell(Move.LIVE, "handover.source.release", Fault.KILL, "router"),
    Cell(Move.PREFILL, "handover.receiver.reserve", Fault.FULL, "destination"),
    Cell(Move.LIVE, "handover.receiver.room", Fault.GONE, "client"),
    Cell(Move.PREFILL, "handover.receiver.pass", Fault.STALL, "destination"),
    Cell(Move.LIVE, "handover.receiver.activate", Fault.LATE, "destination"),
    Cell(Move.LIVE, "router.grant", Fault.CORRUPT, "destination"),
    Cell(Move.PREFILL, "router.commit", Fault.DROP, "router"),
    Cell(Move.LIVE, "router.close", Fault.ABORT, "client"),  # by way of receiver.arrive
    Cell(Move.PREFILL, "router.recover", Fault.KILL, "destination"),  # by way of source.transfer
]
REQUESTS = {cell: request_of(number, cell.move) for number, cell in enumerate(CELLS)}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def expected() -> dict[Request, list[int]]:
    return await undisturbed(REQUESTS.values())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cluster() -> AsyncIterator[FaultyCluster]:
    async with FaultyCluster() as cluster:
        yield cluster


def test_the_cells_come_to_every_step() -> None:
    by_the_way = {"handover.receiver.arrive", "handover.source.transfer"}
    assert {cell.step for cell in CELLS} | by_the_way == set(STEPS)
    assert {cell.fault for cell in CELLS} == set(Fault)
    assert not any(cell.why_not for cell in CELLS)


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_nothing_comes_of_it(cell: Cell, cluster: FaultyCluster, expected: dict[Request, list[int]]) -> None:
    request = REQUESTS[cell]
    await run_cell(cluster, cell, request, expected[request])
