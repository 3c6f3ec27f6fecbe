"""One cell of the matrix on a cluster that is well: something goes wrong, and nothing comes of it."""

import asyncio
import signal
from contextlib import suppress
from dataclasses import dataclass

import grpc

from router.ledger import Step
from tests.faults.cells import Cell, Fault, Move
from tests.faults.faulty_cluster import ROUTER, FaultyCluster
from tests.faults.stream import Request, Stream, WentWrong

STALL_S = 5.0
FULL_S = 1.5
REACH_TIMEOUT_S = 10.0
END_TIMEOUT_S = 30.0
ERROR_TIMEOUT_S = 2.0

_TOLD = {Step.PASSED: "passed", Step.KEPT: "kept", Step.RECOVERING: "recovered", Step.ADOPTED: "adopted"}


@dataclass(frozen=True, slots=True)
class Outcome:
    """`gap_s`: the longest time in which the client heard nothing. `path`: what became of the request."""

    gap_s: float
    path: str


async def run_cell(cluster: FaultyCluster, cell: Cell, request: Request, expected: list[int]) -> Outcome:
    """Raises WentWrong or TimeoutError."""
    return await _Run(cluster, cell, request, expected).run()


class _Run:
    def __init__(self, cluster: FaultyCluster, cell: Cell, request: Request, expected: list[int]) -> None:
        self._cluster = cluster
        self._cell = cell
        self._request = request
        self._expected = expected
        self._holder = cluster.parties[cell.holder]

    async def run(self) -> Outcome:
        cluster, cell = self._cluster, self._cell
        cluster.notes.clear()
        cluster.events.clear()
        if cell.move is Move.LIVE:
            self._start()
            await self._stream.until_decoding()
        await self._arm()
        if cell.move is Move.PREFILL:
            self._start()
        moving = asyncio.create_task(self._move())
        try:
            await self._reach()
            await self._break()
            await self._check_end()
            await asyncio.wait_for(moving, END_TIMEOUT_S)
        finally:
            moving.cancel()
            self._stream.task.cancel()
        await cluster.until_well()
        return Outcome(self._stream.gap_s, self._path())

    def _start(self) -> None:
        resumable = self._cell.fault is not Fault.GONE
        self._stream = Stream(self._cluster.client, self._request, str(self._cell), resumable=resumable)

    async def _move(self) -> None:
        """What becomes of it is for the request to show; but it answers."""
        if self._cell.move is Move.LIVE:
            with suppress(grpc.aio.AioRpcError):
                await self._cluster.client.migrate(self._stream.request_id, self._cell.move.destination)

    # The step

    async def _arm(self) -> None:
        """Some steps are come to only after something has gone wrong already."""
        if self._cell.step == "router.close":
            await self._hold(self._cell.move.destination, "handover.receiver.arrive")
        if self._cell.step == "router.recover":
            await self._hold(self._cell.move.source, "handover.source.transfer")
        await self._hold(self._cell.holder, self._cell.step)

    async def _hold(self, party: str, step: str) -> None:
        self._cluster.parties[party].tell("hold", step)
        await self._heard("armed", step)

    async def _reach(self) -> None:
        if self._cell.step == "router.recover":
            await self._heard("held", "handover.source.transfer")
            self._cluster.kill(self._cell.move.source)
        if self._cell.step == "router.close":
            await self._heard("held", "handover.receiver.arrive")
            await self._damage()
            self._cluster.parties[self._cell.move.destination].tell("release")
            await self._heard("damaged")
        await self._heard("held", self._cell.step)

    async def _heard(self, *event: str) -> None:
        try:
            await self._cluster.until(lambda: event in self._cluster.events, REACH_TIMEOUT_S)
        except TimeoutError:
            raise WentWrong(f"{event} was not heard within {REACH_TIMEOUT_S} s") from None

    # The fault

    async def _break(self) -> None:
        match self._cell.fault:
            case Fault.KILL:
                await self._kill()
            case Fault.STALL:
                await self._stall()
            case Fault.LATE:
                await asyncio.sleep(STALL_S)
                self._holder.tell("release")
            case Fault.DROP:
                await self._drop()
            case Fault.CORRUPT:
                await self._damage()
                self._holder.tell("release")
                await self._heard("damaged")
            case Fault.FULL:
                await self._fill()
            case Fault.ABORT:
                await self._abort()
            case Fault.GONE:
                self._stream.task.cancel()
                await asyncio.wait({self._stream.task})
                self._holder.tell("release")
        await self._cluster.revive()

    async def _kill(self) -> None:
        self._cluster.kill(self._cell.victim_party)
        self._holder.tell("release")

    async def _stall(self) -> None:
        victim = self._cluster.parties[self._cell.victim_party]
        victim.signal(signal.SIGSTOP)
        self._holder.tell("release")
        await asyncio.sleep(STALL_S)
        victim.signal(signal.SIGCONT)

    async def _drop(self) -> None:
        infos = self._cluster.infos
        there = infos[self._cell.move.destination]
        addresses = [there.address]
        addresses.append(infos[self._cell.move.source].address if self._cell.victim == ROUTER else there.link_address)
        ports = [int(address.rpartition(":")[2]) for address in addresses]
        self._cluster.parties[self._cell.victim_party].tell("drop", ports)
        await self._heard("dropped")
        self._holder.tell("release")

    async def _damage(self) -> None:
        """The next block that comes to the destination."""
        self._cluster.parties[self._cell.move.destination].tell("damage")
        await self._heard("armed", "links.receive.record")

    async def _fill(self) -> None:
        victim = self._cluster.parties[self._cell.victim_party]
        victim.tell("fill")
        self._holder.tell("release")
        await self._heard("filled")
        await asyncio.wait({self._stream.task}, timeout=FULL_S)
        victim.tell("empty")

    async def _abort(self) -> None:
        """A router that stands still answers when it is released."""
        aborting = asyncio.create_task(self._cluster.client.abort(self._stream.request_id))
        await asyncio.wait({aborting}, timeout=0.2)
        self._holder.tell("release")
        async with asyncio.timeout(ERROR_TIMEOUT_S):
            await aborting
            await asyncio.wait({self._stream.task})

    # What must have become of it

    async def _check_end(self) -> None:
        stream, cell = self._stream, self._cell
        done, _ = await asyncio.wait({stream.task}, timeout=END_TIMEOUT_S)
        if not done:
            raise WentWrong(f"the client still waits after {END_TIMEOUT_S} s, with {len(stream.token_ids)} tokens")
        if not stream.task.cancelled():
            stream.task.result()
        if stream.token_ids != self._expected[: len(stream.token_ids)]:
            pairs = enumerate(zip(stream.token_ids, self._expected, strict=False))
            index, pair = next((index, pair) for index, pair in pairs if pair[0] != pair[1])
            raise WentWrong(f"token {index} is {pair[0]}, and {pair[1]} undisturbed")
        if cell.fault is Fault.GONE:
            return
        if cell.fault is Fault.ABORT:
            if stream.error is not grpc.StatusCode.CANCELLED:
                raise WentWrong(f"aborted, it ended with {stream.error}")
        elif stream.error or len(stream.token_ids) != len(self._expected):
            raise WentWrong(f"it ended with {stream.error} after {len(stream.token_ids)} tokens")

    def _path(self) -> str:
        mine = [note.step for note in self._cluster.notes if note.request_id == self._stream.request_id]
        return ", ".join(_TOLD[step] for step in mine if step in _TOLD)
