"""All moves of one length: live, blocking and by recomputing, in turns; then to a busy instance and back.

    a --live--> b --live--> c --blocking--> d --blocking--> a

`a` and `c` share one core, `b` and `d` the other, so that every move is from core to core. `c` and `d` move with
`max_stages` 0: the request stands still while all of its blocks are copied. The first round warms up.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise

from deploy.bench.engine import BLOCK_SIZE
from deploy.bench.migration_fleet import Fleet, Running
from deploy.bench.migration_moves import Handover, Move, handovers, move, recompute

NEXT = {"a": "b", "b": "c", "c": "d", "d": "a"}
ACROSS = {"a": "b", "b": "a", "c": "b", "d": "a"}
NUM_OTHERS = 4
NUM_RAW_TRANSFERS = 9
_NUM_RECOMPUTES = range(2, 11)
_RECOMPUTE_BUDGET_S = 15.0

Show = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class Samples:
    """`others_s`: steps of the others in the source, without a migration beside them and with one.

    `raw_link_s` is for one block, while the request decodes in the source; `raw_idle_s` while nothing runs.
    `segments`: the output of every request that all this was measured on; they share `prompt`.
    """

    num_tokens: int
    prompt: tuple[int, ...]
    live: list[Move] = field(default_factory=list)
    blocking: list[Move] = field(default_factory=list)
    recomputed: list[Move] = field(default_factory=list)
    busy: list[Move] = field(default_factory=list)
    handovers: list[Handover] = field(default_factory=list)
    raw_link_s: list[float] = field(default_factory=list)
    raw_idle_s: list[float] = field(default_factory=list)
    others_s: tuple[list[float], list[float]] = field(default_factory=lambda: ([], []))
    segments: list[list[int]] = field(default_factory=list)


class RowBench:
    def __init__(self, fleet: Fleet, samples: Samples, num_moves: int, show: Show) -> None:
        self._fleet = fleet
        self._samples = samples
        self._num_moves = num_moves
        self._show = show
        self._prompt = samples.prompt
        self._max_growth = max(64, len(self._prompt) // 4)

    async def run(self, other_prompts: list[tuple[int, ...]]) -> None:
        await self._raw_link(self._samples.raw_idle_s, NUM_RAW_TRANSFERS)
        request = await self._start()
        request = await self._ring(request)
        await self._recompute(request)
        request = await self._fresh(request)
        await self._busy(request, other_prompts)

    async def _start(self) -> Running:
        self._show("prefill")
        request = self._fleet.start(self._prompt, "a")
        await request.until_tokens(1)
        return request

    async def _fresh(self, request: Running, *, always: bool = False) -> Running:
        """The same prompt anew when the request has grown too much, or is where the next moves do not begin."""
        if not always and len(request.token_ids) <= self._max_growth and request.at == "a":
            return request
        await self._end(request)
        return await self._start()

    async def _end(self, request: Running) -> None:
        self._samples.segments.append(list(request.token_ids))
        await self._fleet.stop(request)

    async def _raw_link(self, took_s: list[float], count: int) -> None:
        num_blocks = -(-len(self._prompt) // BLOCK_SIZE)
        for _ in range(count):
            took_s.append(await self._fleet.raw_link_s("a", "b", num_blocks) / num_blocks)

    async def _ring(self, request: Running) -> Running:
        samples = self._samples
        for turn in range(self._num_moves // 2 + 1):
            moves = []
            self._show("raw link")
            await self._raw_link(self._samples.raw_link_s, 2)
            await self._fleet.take_logs()
            for _ in NEXT:
                self._show("blocking" if request.at in "cd" else "live")
                moves.append(await move(self._fleet, request, NEXT[request.at]))
            if turn > 0:
                samples.live += moves[:2]
                samples.blocking += moves[2:]
                logged = list(handovers(await self._fleet.take_logs()).values())
                samples.handovers += logged[:2]
            request = await self._fresh(request)
        return request

    async def _recompute(self, request: Running) -> None:
        start_s = time.monotonic()
        for count in range(_NUM_RECOMPUTES.stop):
            if count >= _NUM_RECOMPUTES.start and time.monotonic() - start_s > _RECOMPUTE_BUDGET_S:
                break
            self._show("recompute")
            self._samples.recomputed.append(await recompute(self._fleet, request, ACROSS[request.at]))

    async def _busy(self, request: Running, other_prompts: list[tuple[int, ...]]) -> None:
        """Others decode at `a` all the time: moves from there show what these notice, moves to there what they cost."""
        others = [self._fleet.start(prompt, "a") for prompt in other_prompts]
        for other in others:
            await other.until_tokens(1)
        for turn in range(self._num_moves + 1):
            self._show("busy")
            there = await move(self._fleet, request, "b")
            if turn > 0:
                self._note_others(there, others)
            back = await move(self._fleet, request, "a")
            if turn > 0:
                self._samples.busy.append(back)
            if len(request.token_ids) > self._max_growth:
                request = await self._fresh(request)
        await self._end(request)
        await self._fleet.stop(*others)

    def _note_others(self, there: Move, others: list[Running]) -> None:
        """All of them step together, so one of them tells: the steps that were under way while the request moved.

        And those of a time as long before it, which favours long steps as much.
        """
        without, during = self._samples.others_s
        took_s, earlier_s = there.end_s - there.start_s, 3 * there.step_s
        without += _steps_within(others[0], there.start_s - took_s - earlier_s, there.start_s - earlier_s)
        during += _steps_within(others[0], there.start_s, there.end_s)


def _steps_within(other: Running, start_s: float, end_s: float) -> list[float]:
    return [later_s - at_s for at_s, later_s in pairwise(other.times_s) if later_s > start_s and at_s < end_s]


async def reference(fleet: Fleet, prompt: tuple[int, ...], at: str, num_tokens: int) -> list[int]:
    """What the request says when it is left alone."""
    request = fleet.start(prompt, at)
    await request.until_tokens(num_tokens)
    token_ids = request.token_ids[:num_tokens]
    await fleet.stop(request)
    return token_ids
