"""What rank 0 does as soon as another rank is gone."""

import queue
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing

import pytest

from cluster.handshake import draw_secret
from cluster.ranks.callers import Callers
from cluster.ranks.channel import RankChannel
from cluster.ranks.errors import RankLost
from cluster.ranks.group import RankGroup
from cluster.ranks.setup import RankSetup

pytestmark = pytest.mark.unit

SECRET = draw_secret()
SETUP = RankSetup(world_size=3, model_path="/model", dtype="float32", block_size=8)
PATIENCE_S = 30.0


@pytest.fixture
def callers() -> Iterator[list[Callers]]:
    """Of ranks 1 and 2."""
    with ExitStack() as stack:
        yield [stack.enter_context(closing(Callers(SECRET, "127.0.0.1", 0))) for _ in range(2)]


@pytest.fixture
def group() -> Iterator[RankGroup]:
    with closing(RankGroup()) as group:
        yield group


def begin(group: RankGroup, callers: list[Callers]) -> list[RankChannel]:
    """The other ends of the group's channels."""
    group.call([it.address for it in callers], SETUP, SECRET)
    return [it.first("hello")[0] for it in callers]


def test_an_abort_that_fails_is_logged(group, callers, caplog):
    is_over, threads = threading.Event(), queue.SimpleQueue()

    def abort() -> None:
        threads.put(threading.current_thread())
        assert is_over.wait(PATIENCE_S)
        raise RuntimeError("NCCL says no")

    one, other = begin(group, callers)
    with closing(one), closing(other):
        group.abort_when_lost(abort)
        one.shutdown()
        assert other.receive() is None  # its channel is shut while the abort takes its time
        with pytest.raises(RankLost, match="rank 1 is lost"):
            group.raise_if_lost()
        thread = threads.get(timeout=PATIENCE_S)
        is_over.set()
        thread.join(PATIENCE_S)
    assert "the abort of what is under way failed: NCCL says no" in caplog.text


class LosingFirst(list[str]):
    """Addresses: before the second is called, the first is gone, and the group has heard of it."""

    def __init__(self, callers: list[Callers], told: queue.SimpleQueue[RankLost]) -> None:
        super().__init__(it.address for it in callers)
        self._first, self._told = callers[0], told

    def __iter__(self) -> Iterator[str]:
        yield self[0]
        self._first.first("hello")[0].close()
        assert self._told.get(timeout=PATIENCE_S).rank == 1
        yield self[1]


def test_when_a_rank_is_lost_while_others_are_called_these_end_too(group, callers):
    told: queue.SimpleQueue[RankLost] = queue.SimpleQueue()
    group.tell_of_loss(told.put)
    with pytest.raises(RankLost, match="rank 1 is lost"):
        group.call(LosingFirst(callers, told), SETUP, SECRET)
    with closing(callers[1].first("hello")[0]) as second:
        assert second.receive() is None
