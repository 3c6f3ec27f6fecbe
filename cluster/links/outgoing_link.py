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
from cluster.links.link_end import LinkKey
from cluster.links.link_stats import LinkStats
from cluster.links.probe.plan import SPLIT_BYTES
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.links.sample_log import SampleLog
from cluster.links.source_connection import SourceConnection
from cluster.messages import BlockTransfer, TransferSample
from cluster.secret import ClusterSecret

MAX_QUEUED_TRANSFERS = 1024


class OutgoingLink:
    """Lives from its first transfer until it fails, is closed, or the peer hangs up; it is not used again after that.

    Raises OSError or RuntimeError when this process has no descriptor or no thread left for it.

    `put` comes from the engine, all else happens in the link's own thread. Every transfer that was put ends in exactly
    one event; when the link fails, all that are queued fail with it. Probes wait until no transfer does.
    """

    def __init__(
        self,
        key: LinkKey,
        region: Region,
        config: LinkConfig,
        stats: LinkStats,
        samples: SampleLog,
        events: SourceEvents,
        secret: ClusterSecret,
    ) -> None:
        self.key = key
        self._region = region
        self._config = config
        self._stats = stats
        self._samples = samples
        self._events = events
        self._secret = secret
        self._lock = threading.Lock()
        self._queue: deque[BlockTransfer] = deque()
        self._probes: deque[ProbeTransfer] = deque()
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

    def put(self, transfer: BlockTransfer | ProbeTransfer) -> bool:
        """False: this link has ended. Raises TransferRefused when too much is queued."""
        with self._lock:
            if self._ended or self._closing:
                return False
            if len(self._queue) + len(self._probes) >= MAX_QUEUED_TRANSFERS:
                raise TransferRefused(f"{len(self._queue) + len(self._probes)} transfers are queued on this link")
            if isinstance(transfer, ProbeTransfer):
                self._probes.append(transfer)
            else:
                self._queue.append(transfer)
            os.eventfd_write(self._wake_fd, 1)
            return True

    def close(self, reason: str) -> None:
        """Ends it soon; `join` waits for that."""
        with self._lock:
            if not self._ended:
                self._closing = self._closing or reason
                os.eventfd_write(self._wake_fd, 1)
                if self._connection is not None:
                    self._connection.shutdown()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        transfer, reason = self._next(), "the peer hung up"
        try:
            if transfer is not None:
                connection = self._connect()
            while transfer is not None:
                self._move(connection, transfer)
                transfer = self._next()
        except MemoryInUse as error:  # law 9: this one fails when nothing reads its blocks any more
            reason = str(error)
            if isinstance(transfer, BlockTransfer):
                error.when_dead(partial(self._fail, transfer, reason))
                transfer = None
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
            self._connection = connection = SourceConnection(sock, self._region, self._config, self._secret)
            if self._closing:
                raise LinkError(self._closing)
        welcome = connection.open(self.key, sockaddr)
        self._stats.connected(welcome.transport, welcome.note)
        self._poll.register(sock.fileno(), select.POLLIN)
        return connection

    def _move(self, connection: SourceConnection, transfer: BlockTransfer | ProbeTransfer) -> None:
        try:
            if isinstance(transfer, ProbeTransfer):
                self._move_probe(connection, transfer)
            else:
                self._move_blocks(connection, transfer)
        except TransferRefused as refusal:
            self._fail(transfer, str(refusal))
        except OSError as error:
            raise LinkError(str(error)) from error

    def _move_blocks(self, connection: SourceConnection, transfer: BlockTransfer) -> None:
        num_bytes = len(transfer.block_ids) * connection.part.num_bytes
        seconds = connection.transfer(transfer, self._widened(connection, num_bytes))
        self._stats.sent(num_bytes, seconds)
        sample = TransferSample(
            target=self.key.receiver.holder,
            transport=connection.transport,
            num_bytes=num_bytes,
            seconds=seconds,
            ended_s=time.monotonic(),
        )
        self._samples.put(sample)
        self._events.on_sent(transfer)

    def _move_probe(self, connection: SourceConnection, probe: ProbeTransfer) -> None:
        num_connections = probe.num_connections if connection.transport == "tcp" else 1
        if lack := connection.widen(num_connections):
            raise TransferRefused(lack)
        seconds = connection.probe(probe.num_bytes, num_connections, probe.num_kept)
        if probe.counts:
            self._stats.probed(probe.num_bytes, seconds)
        probe.on_end(ProbeOutcome(transport=connection.transport, seconds=seconds, ended_s=time.monotonic()))

    def _widened(self, connection: SourceConnection, num_bytes: int) -> int:
        """Over how many connections so many bytes go; the first time, the others are made.

        If there are fewer, over those; the transfers to come, too, until a probe tries more.
        """
        num_connections = self._stats.num_connections
        if num_connections == 1 or num_bytes < SPLIT_BYTES or connection.transport != "tcp":
            return 1
        if lack := connection.widen(num_connections):
            note = f"{connection.num_connections} of {num_connections} connections: {lack}"
            num_connections = connection.num_connections
            self._stats.split(num_connections, note)
        return num_connections

    def _next(self) -> BlockTransfer | ProbeTransfer | None:
        """Waits for a transfer. None when closed, or when an idle peer says something, which can only be its end."""
        while True:
            with self._lock:
                if self._closing:
                    return None
                late = self._take_late_probes()
                queue = self._queue or self._probes
                transfer = queue.popleft() if queue else None
            for probe in late:
                probe.on_end(ProbeOutcome(reason="other transfers kept the link busy", is_late=True))
            if transfer is not None:
                return transfer
            if late:
                continue
            if all(fd != self._wake_fd for fd, _ in self._poll.poll()):
                return None
            os.eventfd_read(self._wake_fd)

    def _take_late_probes(self) -> list[ProbeTransfer]:
        now_s = time.monotonic()
        late = [probe for probe in self._probes if probe.give_up_at_s <= now_s]
        for probe in late:
            self._probes.remove(probe)
        return late

    def _end(self, transfer: BlockTransfer | ProbeTransfer | None, reason: str) -> None:
        with self._lock:
            self._ended = True
            os.close(self._wake_fd)
            if self._socket is not None:
                self._socket.close()
            reason = self._closing or reason
            unsent = [*([transfer] if transfer is not None else []), *self._queue, *self._probes]
            self._queue.clear()
            self._probes.clear()
        for each in unsent:
            self._fail(each, reason)

    def _fail(self, transfer: BlockTransfer | ProbeTransfer, reason: str) -> None:
        """A probe that fails is told to who asked for it, and is no failure of a transfer."""
        if isinstance(transfer, ProbeTransfer):
            transfer.on_end(
                ProbeOutcome(transport=self._connection.transport if self._connection else "", reason=reason)
            )
        else:
            self._stats.failed(reason)
            self._events.on_send_failed(transfer, reason)
