"""Rank 0's side of an instance of several ranks: it calls the others, sets them up, and hears when one is lost."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import TypeVar

from cluster.handshake import Unauthenticated
from cluster.links.config import LinkConfig
from cluster.messages import Holder
from cluster.pb.ranks_pb2 import RankFrame
from cluster.ranks.channel import RankChannel
from cluster.ranks.errors import RankLost
from cluster.ranks.far_links import FarEvents, FarLinks
from cluster.ranks.greeting import call
from cluster.ranks.setup import RankSetup
from cluster.secret import ClusterSecret

NOTICE_TIMEOUT_S = 0.5
"""How long after an error in a step it may take to hear that a rank is lost. Usually it is known before."""

log = logging.getLogger(__name__)

T = TypeVar("T")


class RankGroup:
    """Implements `Followers`.

    As soon as a rank is gone, the channels of all others are shut: they end, also in the middle of a step, and whoever
    waits for them in a collective hears of it: with gloo as their connections go, with NCCL as it is aborted.
    """

    def __init__(self) -> None:
        self._on_lost: Callable[[RankLost], None] = lambda lost: None
        self._channels: dict[int, RankChannel] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._num_ready = 0
        self._room: list[int] = []  # blocks, of each rank that has told
        self._abort: Callable[[], None] = lambda: None
        self._lost: RankLost | None = None
        self._is_closing = False

    def call(self, addresses: Sequence[str], setup: RankSetup, secret: ClusterSecret) -> None:
        """Ranks 1 and up are at these addresses; each is told of `setup` with its own number. Raises RankLost."""
        self._addresses, self._secret = addresses, secret
        for rank, address in enumerate(addresses, start=1):
            try:
                channel = call(address, "hello", replace(setup, rank=rank).to_hello(), secret)
            except (OSError, Unauthenticated) as error:
                self.close()
                raise RankLost(rank, f"{address}: {error}") from error
            self._channels = {**self._channels, rank: channel}  # a new one: `_shut` may be reading that of before
            thread = threading.Thread(target=self._listen, args=(rank,), name=f"from rank {rank}", daemon=True)
            self._threads.append(thread)
            thread.start()
            if self._lost is not None:  # perhaps before this one was there to be shut
                self.close()
                raise self._lost

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until all of them have their weights and their KV memory. Raises RankLost, and TimeoutError."""
        with self._changed:
            num_ranks = len(self._channels)
            if not self._changed.wait_for(lambda: self._lost or self._num_ready == num_ranks, timeout_s):
                raise TimeoutError(f"{self._num_ready} of {num_ranks} other ranks are ready after {timeout_s:g} s")
        self.raise_known_loss()

    def unless_lost(self, work: Callable[[], T]) -> T:
        """Does what nothing interrupts, in a thread that is left to itself if a rank is lost. Raises RankLost then."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(work())
            except BaseException as error:
                future.set_exception(error)
            with self._changed:
                self._changed.notify_all()

        threading.Thread(target=run, name="until all ranks are there", daemon=True).start()
        with self._changed:
            self._changed.wait_for(lambda: self._lost or future.done())
        self.raise_known_loss()
        return future.result()

    def abort_when_lost(self, abort: Callable[[], None]) -> None:
        """What ends a collective under way. Raises RankLost if it is too late for that."""
        with self._changed:
            self._abort = abort
        self.raise_known_loss()

    def agree(self, num_blocks: int, timeout_s: float) -> int:
        """How many KV blocks each rank is to have: as many as the one with the least room, which all are told.

        Raises RankLost, and TimeoutError.
        """
        with self._changed:
            num_ranks = len(self._channels)
            if not self._changed.wait_for(lambda: self._lost or len(self._room) == num_ranks, timeout_s):
                raise TimeoutError(f"{len(self._room)} of {num_ranks} other ranks have measured their memory")
        self.raise_known_loss()
        granted = min(num_blocks, *self._room)
        self.tell(RankFrame(granted={"num_blocks": granted}).SerializeToString())
        return granted

    def open_links(self, holder: Holder, config: LinkConfig, events: FarEvents) -> list[FarLinks]:
        """Those of all other ranks, which have to be ready. Raises RankLost."""
        found = []
        for rank, address in enumerate(self._addresses, start=1):
            try:
                found.append(FarLinks(rank, address, holder, config, self._secret, events))
            except (OSError, Unauthenticated) as error:
                raise RankLost(rank, f"{address}: {error}") from error
        return found

    def tell_of_loss(self, on_lost: Callable[[RankLost], None]) -> None:
        """Calls it once, from a thread of this group, as soon as a rank is gone; at once if one is gone already."""
        with self._changed:
            self._on_lost, lost = on_lost, self._lost
        if lost is not None:
            on_lost(lost)

    def tell(self, frame: bytes) -> None:
        self.raise_known_loss()
        for channel in self._channels.values():
            try:
                channel.send(frame)
            except OSError:
                self.raise_if_lost()
                raise

    def raise_if_lost(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._lost, NOTICE_TIMEOUT_S)
        self.raise_known_loss()

    def raise_known_loss(self) -> None:
        if self._lost is not None:
            raise self._lost

    def close(self) -> None:
        """The other ranks end, and nobody hears of it as a loss."""
        with self._changed:
            self._is_closing = True
        self._shut()
        for thread in self._threads:
            thread.join()
        for channel in self._channels.values():
            channel.close()

    def _listen(self, rank: int) -> None:
        try:
            frame = self._channels[rank].hear("room", "ready")
            if frame.HasField("room"):
                with self._changed:
                    self._room.append(frame.room.num_blocks)
                    self._changed.notify_all()
                self._channels[rank].hear("ready")
            with self._changed:
                self._num_ready += 1
                self._changed.notify_all()
            self._channels[rank].hear("failed")  # raised as what it is, like every end
        except OSError as error:
            self._lose(RankLost(rank, str(error)))

    def _lose(self, lost: RankLost) -> None:
        with self._changed:
            if self._is_closing or self._lost is not None:
                return
            self._lost, on_lost, abort = lost, self._on_lost, self._abort
            self._changed.notify_all()
        on_lost(lost)
        self._shut()
        # Not waited for: NCCL ends what runs at once, and returns when the last graph that it is recorded in is gone.
        threading.Thread(target=_try, args=(abort,), name="abort", daemon=True).start()

    def _shut(self) -> None:
        for channel in self._channels.values():
            channel.shutdown()


def _try(abort: Callable[[], None]) -> None:
    try:
        abort()
    except Exception as error:
        log.warning("the abort of what is under way failed: %s", error)
