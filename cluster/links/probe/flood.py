"""What a node can send in all: transfers to several others at the same time, one behind the other on each link."""

import threading
import time
from collections.abc import Sequence

from cluster.links.errors import LinkError
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.probe.session import ProbeTarget
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer

_FIRST_BYTES, _MAX_BYTES = 64 << 10, 16 << 20
_LONG_ENOUGH_S = 0.02
_WARM_UP = 0.2  # of the time that it may take


class _Flow:
    """To one target; sizes grow until a transfer takes long enough for its latency not to count."""

    def __init__(self, links: OutgoingLinks, target: ProbeTarget, until_s: float, warm_at_s: float) -> None:
        self._links = links
        self._target = target
        self._until_s = until_s
        self._warm_at_s = warm_at_s
        self._size = _FIRST_BYTES
        self._begun_s = 0.0
        self._ended_s = 0.0
        self._num_bytes = 0
        self.failure = ""
        self.is_over = threading.Event()

    @property
    def bytes_per_s(self) -> float:
        return self._num_bytes / (self._ended_s - self._begun_s) if self._num_bytes else 0.0

    def send(self) -> None:
        probe = ProbeTransfer(
            num_bytes=self._size,
            num_connections=self._links.num_connections(self._target.holder),
            counts=False,
            give_up_at_s=self._until_s,
            on_end=self._on_outcome,
        )
        self._links.probe(self._target.link_address, self._target.holder, probe)

    def _on_outcome(self, outcome: ProbeOutcome) -> None:
        if outcome.seconds is None:
            self.failure = outcome.reason
            self.is_over.set()
            return
        if not self._begun_s:
            self._begun_s = outcome.ended_s if outcome.ended_s >= self._warm_at_s else 0.0
        else:
            self._ended_s = outcome.ended_s
            self._num_bytes += self._size
        if outcome.ended_s >= self._until_s:
            self.is_over.set()
            return
        if outcome.seconds < _LONG_ENOUGH_S:
            self._size = min(2 * self._size, _MAX_BYTES)
        self.send()


def flood(links: OutgoingLinks, targets: Sequence[ProbeTarget], seconds: float) -> float:
    """Bytes/s that all targets together got. Raises LinkError when none got any."""
    start_s = time.monotonic()
    flows = [_Flow(links, target, start_s + seconds, start_s + _WARM_UP * seconds) for target in targets]
    for flow in flows:
        flow.send()
    for flow in flows:
        flow.is_over.wait()
    if not any(flow.bytes_per_s for flow in flows):
        raise LinkError(next((flow.failure for flow in flows if flow.failure), "nothing arrived in that time"))
    return sum(flow.bytes_per_s for flow in flows)
