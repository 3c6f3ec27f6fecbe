"""Who calls a rank. Each is greeted in a thread of its own: nobody who belongs here waits for a stranger."""

import logging
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from typing import Any

from cluster.handshake import Unauthenticated
from cluster.ranks.channel import RankChannel
from cluster.ranks.greeting import HELLOS, answer
from cluster.secret import ClusterSecret

ACCEPT_RETRY_S = 0.1

log = logging.getLogger(__name__)


class Callers:
    """Of each kind of hello, the first who proves to be of this cluster is let in, and nobody else."""

    def __init__(self, secret: ClusterSecret, host: str, port: int) -> None:
        self._secret = secret
        self._first: dict[str, Future[tuple[RankChannel, Any]]] = {kind: Future() for kind in HELLOS}
        self._telling = threading.Lock()
        self._on_stranger: Callable[[], None] | None = None
        self._num_untold = 0
        self._closed = threading.Event()
        self._listener = socket.create_server((host, port))
        self.address = f"{host}:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name="callers of a rank", daemon=True)
        self._thread.start()

    def first(self, kind: str) -> tuple[RankChannel, Any]:
        """Waits for it. With the hello of this kind."""
        return self._first[kind].result()

    def tell_strangers(self, on_stranger: Callable[[], None]) -> None:
        """Of each that has called, and of each that will, from threads of theirs."""
        with self._telling:
            self._on_stranger = on_stranger
            for _ in range(self._num_untold):
                on_stranger()

    def close(self) -> None:
        """Nobody can call any more."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._listener.close()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                sock, _ = self._listener.accept()
                threading.Thread(target=self._greet, args=(sock,), name="a rank's caller", daemon=True).start()
            except (OSError, RuntimeError) as error:
                if not self._closed.is_set():
                    log.error("accepting a call to a rank: %s", error)
                    self._closed.wait(ACCEPT_RETRY_S)  # out of descriptors or threads: that does not pass at once

    def _greet(self, sock: socket.socket) -> None:
        channel = RankChannel(sock)
        try:
            kind, hello = answer(channel, self._secret)
            self._first[kind].set_result((channel, hello))
        except (OSError, Unauthenticated) as error:
            _turn_away(channel, str(error))
            self._count_stranger()
        except InvalidStateError:
            _turn_away(channel, "it has been called before")

    def _count_stranger(self) -> None:
        with self._telling:
            if self._on_stranger is None:
                self._num_untold += 1
                return
            with suppress(OSError):  # rank 0 is gone, and whom it would be told to with it
                self._on_stranger()


def _turn_away(channel: RankChannel, reason: str) -> None:
    log.warning("a call to a rank is turned away: %s", reason)
    channel.close()
