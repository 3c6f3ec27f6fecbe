"""One move of a running request, as its client saw it and as both instances logged it."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from deploy.bench.migration_fleet import Fleet, Running
from deploy.errors import DeployError

NUM_TOKENS_BEFORE = 6
NUM_TOKENS_AFTER = 6
_NUM_TOKENS_AROUND = 2  # after the first that came from over there: what it may still be slowed down by

LogLine = tuple[str, str, int, float, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """`gap_s`: the longest between two tokens around the move; `step_s`: the median at the slower of both ends.

    `still_gap_s`: the longest of about as many before it, less their median: what is there without any move.

    From `start_s`, the word to hand over, to `end_s` it moved.
    """

    gap_s: float
    step_s: float
    still_gap_s: float
    start_s: float
    end_s: float

    @property
    def added_gap_s(self) -> float:
        return self.gap_s - self.step_s


async def move(fleet: Fleet, request: Running, to: str) -> Move:
    await request.more(NUM_TOKENS_BEFORE)
    num_passed, first, start_s = len(request.passed_s), len(request.times_s), fleet.now_s()
    fleet.hand_over(request, to)
    await request.until_passed(num_passed + 1)
    end_s = request.passed_s[-1]
    await request.more(NUM_TOKENS_AFTER)
    return _measured(request, first, start_s, end_s)


async def recompute(fleet: Fleet, request: Running, to: str) -> Move:
    await request.more(NUM_TOKENS_BEFORE)
    first, start_s = len(request.times_s), fleet.now_s()
    fleet.start_again(request, to)
    await request.until_tokens(first + 1)
    end_s = request.times_s[first]
    await request.more(NUM_TOKENS_AFTER)
    return _measured(request, first, start_s, end_s)


def _measured(request: Running, first: int, start_s: float, end_s: float) -> Move:
    """`first`: the token that came next after `start_s`."""
    times_s = request.times_s
    last = min(bisect_right(times_s, end_s) + _NUM_TOKENS_AROUND, len(times_s) - 1)
    around = gaps(times_s[first - 1 : last + 1])
    before, after = gaps(times_s[first - NUM_TOKENS_BEFORE : first]), gaps(times_s[-NUM_TOKENS_AFTER:])
    return Move(
        gap_s=max(around),
        step_s=max(median(before), median(after)),
        still_gap_s=max(before) - median(before),
        start_s=start_s,
        end_s=end_s,
    )


def gaps(times_s: Sequence[float]) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times_s)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What both instances logged of one: seconds from its first word (the Reserve) to its last (Activated).

    `transfer_s`: from the first offer to the Pass, which follows the last. `link_s`: of that, while blocks moved.
    """

    num_blocks: int
    num_transfers: int
    reserve_s: float
    transfer_s: float
    link_s: float
    frozen_s: float

    @property
    def total_s(self) -> float:
        return self.reserve_s + self.transfer_s + self.frozen_s


def handovers(lines: Sequence[LogLine]) -> dict[tuple[str, int], Handover]:
    """By request and epoch, in the order in which they began."""
    grouped: dict[tuple[str, int], list[LogLine]] = {}
    for line in sorted(lines, key=lambda line: line[3]):
        grouped.setdefault((line[1], line[2]), []).append(line)
    return {key: _handover(group) for key, group in grouped.items()}


def _handover(lines: Sequence[LogLine]) -> Handover:
    def first_s(what: str) -> float:
        for line in lines:
            if line[0] == what:
                return line[3]
        raise DeployError(f"a handover without {what!r}: {lines}")

    offers = [line for line in lines if line[0] == "offer"]
    pass_s = first_s("pass")
    return Handover(
        num_blocks=sum(line[4] for line in offers),
        num_transfers=len(offers),
        reserve_s=first_s("offer") - first_s("reserve"),
        transfer_s=pass_s - first_s("offer"),
        link_s=_busy_s(lines),
        frozen_s=first_s("activated") - pass_s,
    )


def _busy_s(lines: Sequence[LogLine]) -> float:
    """While at least one transfer was offered and not over."""
    busy_s, num_open, since_s = 0.0, 0, 0.0
    for what, _, _, at_s, _ in lines:
        if what == "offer":
            since_s = since_s if num_open else at_s
            num_open += 1
        elif what == "sent":
            num_open -= 1
            busy_s += 0.0 if num_open else at_s - since_s
    return busy_s
