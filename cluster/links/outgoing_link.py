"""One link to a peer: its queue and its thread."""

import os
import select
import threading
import time
from collections import deque
from functools import partial

from cluster.links.config import LinkConfig
from cluster.links.device_region import Region
from cluster.links.errors import LinkError, MemoryInUse, TransferRefused
from cluster.links.events import SourceEvents
from cluster.links.frame_socket import FrameSocket
from cluster.links.link_stats import LinkStats
from cluster.links.source_connection import LinkKey, SourceConnection
from cluster.messages import BlockTransfer
from cluster.secret import ClusterSecret

MAX_QUEUED_TRANSFERS = 1024


class OutgoingLink:
    """Lives from its first transfer until it fails, is closed, or the peer hangs up; it is not used again after that.

    Raises OSError or RuntimeError when this process has no descriptor or no thread left for it.

    `put` comes from the engine, all else happens in the link's own thread. Every transfer that was put ends in exactly
    one event; when the link fails, all that are queued fail with it.
    """

    def __init__(
        self,
        key: LinkKey,
        region: Region,
        config: LinkConfig,
        stats: LinkStats,
        events: SourceEvents,
        secret: ClusterSecret,
    ) -> None:
        self.key = key
        self._region = region
        self._config = config
        self._stats = stats
        self._events = events
        self._secret = secret
        self._lock = threading.Lock()
        self._queue: deque[BlockTransfer] = deque()
        self._wake_fd = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self._wake_fd, select.POLLIN)
        self._socket: FrameSocket | None = None
        self._connection: SourceConnection | None = None
        self._closing: str | None = None
        self._ended = False
        self._thread = threading.Thread(target=self._run, name=f"link to {key.receiver.holder.instance}", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:
            os.close(self._wake_fd)
            raise

    def put(self, transfer: BlockTransfer) -> bool:
        """False: this link has ended. Raises TransferRefused when too much is queued."""
        with self._lock:
            if self._ended or self._closing:
                return False
            if len(self._queue) >= MAX_QUEUED_TRANSFERS:
                raise TransferRefused(f"{len(self._queue)} transfers are queued on this link")
            self._queue.append(transfer)
            os.eventfd_write(self._wake_fd, 1)
            return True

    def close(self, reason: str) -> None:
        """Ends it soon; `join` waits for that."""
        with self._lock:
            if not self._ended:
                self._closing = self._closing or reason
                os.eventfd_write(self._wake_fd, 1)
                if self._socket is not None:
                    self._socket.shutdown()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        transfer, reason = self._next(), "the peer hung up"
        try:
            if transfer is not None:
                self._connection = connection = self._connect()
            while transfer is not None:
                self._move(connection, transfer)
                transfer = self._next()
        except MemoryInUse as error:  # law 9: this one fails when nothing reads its blocks any more
            assert transfer is not None
            error.when_dead(partial(self._fail, transfer, str(error)))
            transfer, reason = None, str(error)
        except LinkError as error:
            reason = str(error)
        finally:
            self._end(transfer, reason)
            if self._connection is not None:
                self._connection.close()

    def _connect(self) -> SourceConnection:
        sock, sockaddr = FrameSocket.to(self.key.address)
        with self._lock:
            self._socket = sock
            if self._closing:
                raise LinkError(self._closing)
        connection = SourceConnection(sock, self._region, self._config, self._secret)
        welcome = connection.open(self.key, sockaddr)
        self._stats.connected(welcome.transport, welcome.note)
        self._poll.register(sock.fileno(), select.POLLIN)
        return connection

    def _move(self, connection: SourceConnection, transfer: BlockTransfer) -> None:
        start_s = time.monotonic()
        try:
            connection.transfer(transfer)
        except TransferRefused as refusal:
            self._fail(transfer, str(refusal))
        except OSError as error:
            raise LinkError(str(error)) from error
        else:
            self._stats.sent(len(transfer.block_ids) * self._region.record_bytes, time.monotonic() - start_s)
            self._events.on_sent(transfer)

    def _next(self) -> BlockTransfer | None:
        """Waits for a transfer. None when closed, or when an idle peer says something, which can only be its end."""
        while True:
            with self._lock:
                if self._closing:
                    return None
                if self._queue:
                    return self._queue.popleft()
            if all(fd != self._wake_fd for fd, _ in self._poll.poll()):
                return None
            os.eventfd_read(self._wake_fd)

    def _end(self, transfer: BlockTransfer | None, reason: str) -> None:
        with self._lock:
            self._ended = True
            os.close(self._wake_fd)
            if self._socket is not None:
                self._socket.close()
            reason = self._closing or reason
            unsent = [*([transfer] if transfer is not None else []), *self._queue]
            self._queue.clear()
        for each in unsent:
            self._fail(each, reason)

    def _fail(self, transfer: BlockTransfer, reason: str) -> None:
        self._stats.failed(reason)
        self._events.on_send_failed(transfer, reason)
