"""Where peers' links arrive, and those who want weights."""

import logging
import socket
import threading

from cluster.links.config import LinkConfig
from cluster.links.device_region import Region
from cluster.links.events import ReceiverEvents
from cluster.links.frame_socket import size_buffers
from cluster.links.incoming_link import IncomingLink
from cluster.links.link_end import LinkEnd
from cluster.links.probe.memory import Scratch
from cluster.links.receiving import ReceivingEnd
from cluster.links.slot_table import SlotTable
from cluster.links.weights_sender import WeightsSender
from cluster.messages import Holder
from cluster.secret import ClusterSecret

BACKLOG = 128
ACCEPT_RETRY_S = 1.0

log = logging.getLogger(__name__)


class LinkListener:
    """Accepts from construction to `close`; a thread for each link. Raises OSError when the port is in use."""

    def __init__(
        self,
        holder: Holder,
        region: Region,
        slots: SlotTable,
        config: LinkConfig,
        events: ReceiverEvents,
        *,
        secret: ClusterSecret,
        host: str,
        port: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        weights: WeightsSender | None = None,
    ) -> None:
        self._receiving = ReceivingEnd(
            end=LinkEnd(holder=holder, rank=rank, num_ranks=num_ranks),
            region=region,
            slots=slots,
            config=config,
            events=events,
            secret=secret,
            scratch=Scratch(region.record_bytes),
            weights=weights,
        )
        self._lock = threading.Lock()
        self._links: set[IncomingLink] = set()
        self._closed = threading.Event()
        self._socket = socket.create_server((host, port), backlog=BACKLOG)
        size_buffers(self._socket)
        self.address = f"{host}:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._accept, name="link listener", daemon=True)
        self._thread.start()

    @property
    def num_links(self) -> int:
        with self._lock:
            return len(self._links)

    def close(self) -> None:
        """Ends all links, and waits for their threads: after it nothing is posted any more."""
        if self._closed.is_set():
            return
        self._closed.set()
        self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._thread.join()
        self._socket.close()
        with self._lock:
            links = list(self._links)
        for link in links:
            link.close()
        for link in links:
            link.join()

    def _accept(self) -> None:
        while not self._closed.is_set():
            try:
                sock, _ = self._socket.accept()
            except OSError as error:
                if not self._closed.is_set():
                    log.error("accepting a link: %s", error)
                    self._closed.wait(ACCEPT_RETRY_S)  # out of descriptors, say: that does not pass at once
                continue
            self._start(sock)

    def _start(self, sock: socket.socket) -> None:
        link = IncomingLink(sock, self._receiving, self._forget)
        with self._lock:
            self._links.add(link)
        try:
            link.start()
        except RuntimeError as error:
            log.error("starting a link: %s", error)
            self._forget(link)
            sock.close()
            self._closed.wait(ACCEPT_RETRY_S)  # out of threads: that does not pass at once either

    def _forget(self, link: IncomingLink) -> None:
        with self._lock:
            self._links.discard(link)
