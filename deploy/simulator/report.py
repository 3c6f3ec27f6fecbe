"""What the simulated cluster did: instances, links and handovers, and how it went over time."""

from dataclasses import dataclass, field


@dataclass(slots=True, kw_only=True)
class InstanceUse:
    """All lives of an instance together. `busy_s`: of its first stage. `peak_kv_use`: from 0 to 1 of its blocks."""

    name: str
    role: str
    node: str
    busy_s: float = 0.0
    num_steps: int = 0
    num_prefill_tokens: int = 0
    num_decode_tokens: int = 0
    num_cached_tokens: int = 0
    num_preemptions: int = 0
    peak_kv_use: float = 0.0


@dataclass(slots=True, kw_only=True)
class LinkUse:
    """From node to node. `busy_s`: with at least one transfer under way."""

    source: str
    target: str
    num_transfers: int = 0
    num_bytes: int = 0
    num_failures: int = 0
    busy_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverSample:
    """A handover that is over, from its grant to its end; `error`: why it was given up, or nothing."""

    request: int
    reason: str
    source: str
    target: str
    began_s: float
    ended_s: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSample:
    name: str
    num_waiting: int
    num_running: int
    kv_use: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineSample:
    """`link_rates`: bytes/s at that moment, by source and target node, where anything moves."""

    at_s: float
    num_queued: int
    instances: tuple[InstanceSample, ...]
    link_rates: dict[tuple[str, str], float]


@dataclass(slots=True, kw_only=True)
class Report:
    """`num_events`: that the clock brought. `handovers`: how many, by their reason and then by how they ended.

    `timeline` and `handover_log` are filled only where samples were asked for.
    """

    duration_s: float = 0.0
    num_events: int = 0
    num_requests: int = 0
    num_failed: int = 0
    instances: list[InstanceUse] = field(default_factory=list)
    links: list[LinkUse] = field(default_factory=list)
    handovers: dict[str, dict[str, int]] = field(default_factory=dict)
    timeline: list[TimelineSample] = field(default_factory=list)
    handover_log: list[HandoverSample] = field(default_factory=list)
