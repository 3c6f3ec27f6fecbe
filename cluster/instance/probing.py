"""The links that fronts want to have measured: one probe at a time, and each is answered, unless its front is gone."""

import threading
from collections import deque
from collections.abc import Callable
from functools import partial

from cluster.links.config import LinkConfig
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.probe.plan import ProbeLimits
from cluster.links.probe.session import ProbeSession, ProbeTarget
from cluster.messages import Probe, Probed

MAX_WAITING = 64


class Probing:
    """`start` and `drop` come from the step loop; `tell(front, probed)` may be called from any thread.

    Two at a time would each measure what the other leaves of this node's egress.
    """

    def __init__(self, links: OutgoingLinks, config: LinkConfig, tell: Callable[[str, Probed], None]) -> None:
        self._links = links
        self._config = config
        self._tell = tell
        self._lock = threading.Lock()
        self._is_busy = False
        self._waiting: deque[tuple[str, Probe]] = deque()

    def start(self, front: str, probe: Probe) -> None:
        with self._lock:
            is_full = len(self._waiting) >= MAX_WAITING
            if not is_full:
                self._waiting.append((front, probe))
        if is_full:
            error = f"{MAX_WAITING} other probes wait already"
            self._tell(front, Probed(number=probe.number, target=probe.target, error=error))
        else:
            self._begin_next()

    def drop(self, front: str) -> None:
        """That front no longer hears answers: what has not begun is not begun for it. What is under way goes on."""
        with self._lock:
            self._waiting = deque(each for each in self._waiting if each[0] != front)

    def _begin_next(self) -> None:
        with self._lock:
            if self._is_busy or not self._waiting:
                return
            self._is_busy = True
            front, probe = self._waiting.popleft()
        session = ProbeSession(
            self._links,
            ProbeTarget(holder=probe.target, link_address=probe.link_address),
            ProbeLimits(budget_s=probe.budget_s, max_connections=self._config.max_connections),
            partial(self._on_end, front),
            number=probe.number,
        )
        session.start()

    def _on_end(self, front: str, probed: Probed) -> None:
        self._tell(front, probed)
        with self._lock:
            self._is_busy = False
        self._begin_next()
