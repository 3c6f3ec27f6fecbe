"""What a node can send in all: transfers to several others at the same time, one behind the other on each link."""

import threading
import time
from collections.abc import Callable, Sequence

from cluster.links.errors import LinkError
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.probe.session import ProbeTarget
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer

_FIRST_BYTES = 64 << 10  # to where nothing was measured before
_LEAST_BYTES, _MAX_BYTES = 4 << 10, 64 << 20
_LONG_ENOUGH_S = 0.02
_MANY_LATENCIES = 10.0  # so long a transfer has to take that its latency does not look like a limit
_WARM_UP = 0.2  # of the time that it may take
# So much longer it takes when that was too short for one of the links.
_PATIENCE_S = 5.0


class _Flow:
    """To one target; sizes grow until a transfer takes long enough for its latency not to count.

    `is_enough` is asked after each transfer once the time is over.
    """

    def __init__(
        self,
        links: OutgoingLinks,
        target: ProbeTarget,
        until_s: float,
        warm_at_s: float,
        is_enough: Callable[[], bool],
    ) -> None:
        self._links = links
        self._target = target
        self._until_s = until_s
        self._warm_at_s = warm_at_s
        self._is_enough = is_enough
        self._size, self._long_enough_s = self._first()
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
            give_up_at_s=self._until_s + _PATIENCE_S,
            on_end=self._on_outcome,
        )
        self._links.probe(self._target.link_address, self._target.holder, probe)

    def _first(self) -> tuple[int, float]:
        """How much to send first, and how long a transfer should take, by what the link gave before."""
        model = self._links.model(self._target.holder)
        if model is None:
            return _FIRST_BYTES, _LONG_ENOUGH_S
        long_enough_s = max(_LONG_ENOUGH_S, _MANY_LATENCIES * model.alpha_s)
        return max(_LEAST_BYTES, min(int(long_enough_s * model.beta_bytes_per_s), _MAX_BYTES)), long_enough_s

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
        late_s = outcome.ended_s - self._until_s
        if late_s >= _PATIENCE_S or (late_s >= 0.0 and self._is_enough()):
            self.is_over.set()
            return
        if outcome.seconds < self._long_enough_s:
            self._size = min(2 * self._size, _MAX_BYTES)
        self.send()


def flood(links: OutgoingLinks, targets: Sequence[ProbeTarget], seconds: float) -> float:
    """Bytes/s that all targets together got. It goes on until all got some, so that each has the others beside it.

    Raises LinkError when one got none: what the others got says nothing of the node then.
    """
    start_s = time.monotonic()
    flows: list[_Flow] = []

    def is_enough() -> bool:
        return all(flow.bytes_per_s or flow.is_over.is_set() for flow in flows)

    for target in targets:
        flows.append(_Flow(links, target, start_s + seconds, start_s + _WARM_UP * seconds, is_enough))
    for flow in flows:
        flow.send()
    for flow in flows:
        flow.is_over.wait()
    for flow in flows:
        if not flow.bytes_per_s:
            raise LinkError(flow.failure or "nothing arrived in that time")
    return sum(flow.bytes_per_s for flow in flows)
