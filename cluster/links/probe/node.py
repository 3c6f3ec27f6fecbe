"""Links without an instance: what measures the network before there are any, from a process on each node."""

import threading
import time
from collections.abc import Sequence

from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.probe.flood import flood
from cluster.links.probe.plan import ProbeLimits
from cluster.links.probe.session import ProbeSession, ProbeTarget
from cluster.links.shared_region import SharedRegion
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer, Holder, Probed
from cluster.secret import ClusterSecret

__all__ = ["ProbeNode", "ProbeTarget"]

RECORD_BYTES = 64 << 10
REGION_BYTES = 32 << 20
MAX_TRANSFER_S = 0.2  # nobody waits behind these


class _Quiet:
    """No engine: nothing that a link tells matters here."""

    def on_sent(self, transfer: BlockTransfer) -> None: ...

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None: ...

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None: ...

    def on_bad(self, reservation: int, reason: str) -> None: ...

    def on_damaged(self) -> None: ...

    def on_unauthenticated(self) -> None: ...

    def on_malformed(self) -> None: ...


class ProbeNode:
    """Listens from construction to `close`; its methods block and are for any thread. Raises OSError."""

    def __init__(
        self,
        name: str,
        *,
        secret: ClusterSecret,
        config: LinkConfig | None = None,
        host: str = "127.0.0.1",
        region_bytes: int = REGION_BYTES,
    ) -> None:
        config, quiet, holder = config or LinkConfig(), _Quiet(), Holder(name, time.time_ns())
        self._config = config
        self._memory = SharedRegion.create(region_bytes // RECORD_BYTES * RECORD_BYTES)
        region = KvRegion(self._memory.buffer, RECORD_BYTES, self._memory.path)
        region.records.fill(1)  # a page that was never written costs the first who reads it more
        slots = SlotTable(lambda reservation: None)
        self._listener = LinkListener(holder, region, slots, config, quiet, secret=secret, host=host)
        self._links = OutgoingLinks(holder, region, config, quiet, secret=secret)
        self.target = ProbeTarget(holder=holder, link_address=self._listener.address)

    def probe(self, target: ProbeTarget, budget_s: float = 1.0) -> Probed:
        """Never raises: `Probed.error` says why there is no more than there is."""
        found: list[Probed] = []
        is_over = threading.Event()

        def on_end(probed: Probed) -> None:
            found.append(probed)
            is_over.set()

        limits = ProbeLimits(
            budget_s=budget_s, max_transfer_s=MAX_TRANSFER_S, max_connections=self._config.max_connections
        )
        ProbeSession(self._links, target, limits, on_end).start()
        is_over.wait()  # every transfer ends by its deadline
        return found[0]

    def flood(self, targets: Sequence[ProbeTarget], seconds: float) -> float:
        """What all of these together get of this node, in bytes/s. Raises LinkError when none can be reached."""
        return flood(self._links, targets, seconds)

    def close(self) -> None:
        self._links.close()
        self._listener.close()
        self._memory.close()
