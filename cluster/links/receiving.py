"""What all links to one rank have in common, and which of their connections belong together."""

import secrets
import threading
from dataclasses import dataclass, field

from cluster.links.config import LinkConfig
from cluster.links.device_region import Region
from cluster.links.errors import LinkError
from cluster.links.events import ReceiverEvents
from cluster.links.frame_socket import FrameSocket
from cluster.links.lanes import Lanes
from cluster.links.link_end import LinkEnd
from cluster.links.probe.memory import Scratch
from cluster.links.slot_table import SlotTable
from cluster.links.weights_sender import WeightsSender
from cluster.secret import ClusterSecret

_ID_BYTES = 16


class OpenLinks:
    """Thread-safe. Links that further connections may join: those of the same source that were told the link's id."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._links: dict[bytes, tuple[LinkEnd, Lanes]] = {}

    def open(self, source: LinkEnd, lanes: Lanes) -> bytes:
        """The id to tell it."""
        link_id = secrets.token_bytes(_ID_BYTES)
        with self._lock:
            self._links[link_id] = source, lanes
        return link_id

    def join(self, link_id: bytes, source: LinkEnd, sock: FrameSocket) -> None:
        """Raises LinkError when there is no such link of that source, or it takes no more."""
        with self._lock:
            owner, lanes = self._links.get(link_id, (None, None))
        if lanes is None or owner != source:
            raise LinkError("no such link to join")
        lanes.add(sock)

    def close(self, link_id: bytes) -> None:
        with self._lock:
            self._links.pop(link_id, None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceivingEnd:
    """Of all links to one rank. `weights`: gives out those that are here, if it may."""

    end: LinkEnd
    region: Region
    slots: SlotTable
    config: LinkConfig
    events: ReceiverEvents
    secret: ClusterSecret
    scratch: Scratch
    weights: WeightsSender | None = None
    links: OpenLinks = field(default_factory=OpenLinks)
