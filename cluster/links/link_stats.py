"""What a link has done, and how fast it is: latency and bandwidth from its own transfers."""

import threading
from collections import deque
from dataclasses import dataclass, field

from cluster.topology.fit import fit_link
from cluster.topology.link_model import LinkModel

NUM_SAMPLES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatus:
    """A transfer of n bytes takes `alpha_s + n / beta_bytes_per_s`; both are 0 before the first one.

    `note` says why the transport is not the better one, or why there are fewer connections than wanted; `last_failure`
    why a transfer failed. Over `num_connections` large transfers are split (0: there was no link yet).
    """

    source: str
    target: str
    source_rank: int
    target_rank: int
    transport: str
    note: str
    num_transfers: int
    num_bytes: int
    num_failures: int
    last_failure: str
    alpha_s: float
    beta_bytes_per_s: float
    num_connections: int


@dataclass(slots=True)
class _Counters:
    """Of a link in all lives of its receiver."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    num_transfers: int = 0
    num_bytes: int = 0
    num_failures: int = 0
    last_failure: str = ""


class LinkStats:
    """Thread-safe; outlives the link that is torn down and made again.

    `successor` is for the receiver's next life, which may be on another node: it counts on, and knows nothing of speed.
    """

    def __init__(
        self, *, source: str, target: str, source_rank: int, target_rank: int, counters: _Counters | None = None
    ) -> None:
        self._source, self._target = source, target
        self._source_rank, self._target_rank = source_rank, target_rank
        self._counters = counters or _Counters()
        self._lock = self._counters.lock
        self._samples: deque[tuple[int, float]] = deque(maxlen=NUM_SAMPLES)  # (bytes, seconds)
        self._transport = self._note = ""
        self._num_connections, self._lack = 1, ""

    def successor(self) -> "LinkStats":
        return LinkStats(
            source=self._source,
            target=self._target,
            source_rank=self._source_rank,
            target_rank=self._target_rank,
            counters=self._counters,
        )

    def connected(self, transport: str, note: str) -> None:
        with self._lock:
            if self._transport not in ("", transport):
                self._samples.clear()
                self._num_connections, self._lack = 1, ""
            self._transport, self._note = transport, note

    @property
    def num_connections(self) -> int:
        """Over so many a large transfer is split; decided by probes."""
        with self._lock:
            return self._num_connections

    def split(self, num_connections: int, lack: str = "") -> None:
        """`lack`: why not over more."""
        with self._lock:
            self._num_connections, self._lack = num_connections, lack

    def probed(self, num_bytes: int, seconds: float) -> None:
        """Says as much of the link as a transfer, and is none."""
        with self._lock:
            self._samples.append((num_bytes, seconds))

    def sent(self, num_bytes: int, seconds: float) -> None:
        with self._lock:
            self._samples.append((num_bytes, seconds))
            self._counters.num_transfers += 1
            self._counters.num_bytes += num_bytes

    def failed(self, reason: str) -> None:
        with self._lock:
            self._counters.num_failures += 1
            self._counters.last_failure = reason

    def model(self) -> LinkModel | None:
        with self._lock:
            return fit_link(tuple(self._samples))

    def status(self) -> LinkStatus:
        with self._lock:
            model = fit_link(tuple(self._samples))
            return LinkStatus(
                source=self._source,
                target=self._target,
                source_rank=self._source_rank,
                target_rank=self._target_rank,
                transport=self._transport,
                note=self._note or self._lack,
                num_transfers=self._counters.num_transfers,
                num_bytes=self._counters.num_bytes,
                num_failures=self._counters.num_failures,
                last_failure=self._counters.last_failure,
                alpha_s=model.alpha_s if model else 0.0,
                beta_bytes_per_s=model.beta_bytes_per_s if model else 0.0,
                num_connections=self._num_connections if self._transport == "tcp" else int(bool(self._transport)),
            )
