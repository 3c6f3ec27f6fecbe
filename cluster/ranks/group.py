"""Rank 0's side of an instance of several ranks: it calls the others, sets them up, and hears when one is lost."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace

from cluster.handshake import Unauthenticated
from cluster.links.config import LinkConfig
from cluster.messages import Holder
from cluster.ranks.channel import RankChannel
from cluster.ranks.errors import RankLost
from cluster.ranks.far_links import FarEvents, FarLinks
from cluster.ranks.greeting import call
from cluster.ranks.setup import RankSetup
from cluster.secret import ClusterSecret

NOTICE_TIMEOUT_S = 0.5
"""How long after an error in a step it may take to hear that a rank is lost. Usually it is known before."""


class RankGroup:
    """Implements `Followers`.

    As soon as a rank is gone, the channels of all others are shut: they end, also in the middle of a step, and whoever
    waits for them in a collective hears of it as their connections go.
    """

    def __init__(self) -> None:
        self._on_lost: Callable[[RankLost], None] = lambda lost: None
        self._channels: dict[int, RankChannel] = {}
        self._threads: list[threading.Thread] = []
        self._changed = threading.Condition()
        self._num_ready = 0
        self._lost: RankLost | None = None
        self._is_closing = False

    def call(self, addresses: Sequence[str], setup: RankSetup, secret: ClusterSecret) -> None:
        """Ranks 1 and up are at these addresses; each is told of `setup` with its own number. Raises RankLost."""
        self._addresses, self._secret = addresses, secret
        for rank, address in enumerate(addresses, start=1):
            try:
                self._channels[rank] = call(address, "hello", replace(setup, rank=rank).to_hello(), secret)
            except (OSError, Unauthenticated) as error:
                self.close()
                raise RankLost(rank, f"{address}: {error}") from error
            thread = threading.Thread(target=self._listen, args=(rank,), name=f"from rank {rank}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until all of them have their weights and their KV memory. Raises RankLost, and TimeoutError."""
        with self._changed:
            num_ranks = len(self._channels)
            if not self._changed.wait_for(lambda: self._lost or self._num_ready == num_ranks, timeout_s):
                raise TimeoutError(f"{self._num_ready} of {num_ranks} other ranks are ready after {timeout_s:g} s")
        self._raise_lost()

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
        self._raise_lost()
        for channel in self._channels.values():
            try:
                channel.send(frame)
            except OSError:
                self.raise_if_lost()
                raise

    def raise_if_lost(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._lost, NOTICE_TIMEOUT_S)
        self._raise_lost()

    def close(self) -> None:
        """The other ranks end, and nobody hears of it as a loss."""
        with self._changed:
            self._is_closing = True
        self._shut()
        for thread in self._threads:
            thread.join()
        for channel in self._channels.values():
            channel.close()

    def _raise_lost(self) -> None:
        if self._lost is not None:
            raise self._lost

    def _listen(self, rank: int) -> None:
        try:
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
            self._lost, on_lost = lost, self._on_lost
            self._changed.notify_all()
        on_lost(lost)
        self._shut()

    def _shut(self) -> None:
        for channel in self._channels.values():
            channel.shutdown()
