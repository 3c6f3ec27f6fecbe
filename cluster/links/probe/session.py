"""One probe of one link: a transfer after the other, as planned, each begun when the one before has ended."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.probe.plan import ProbeLimits, ProbePlan, ProbeStep
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.messages import Holder, Probed, TransferSample

# So long the first transfers may wait behind others, whatever the budget: without them there is nothing to say.
_PATIENCE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeTarget:
    """A listener for links, as others have to know it."""

    holder: Holder
    link_address: str


class ProbeSession:
    """`on_end` is called once, from the link's thread or from within `start`.

    The budget is spent from the first transfer on: making the link does not count.
    """

    def __init__(
        self,
        links: OutgoingLinks,
        target: ProbeTarget,
        limits: ProbeLimits,
        on_end: Callable[[Probed], None],
        *,
        number: int = 0,
    ) -> None:
        self._links = links
        self._target = target
        self._limits = limits
        self._on_end = on_end
        self._number = number
        self._plan = ProbePlan(limits, links.num_connections(target.holder))
        self._transport = ""
        self._start_s: float | None = None

    def start(self) -> None:
        self._send(self._plan.step)

    def _send(self, step: ProbeStep | None, failure: str = "") -> None:
        if step is None:
            self._end(failure)
            return
        begun_s = time.monotonic() if self._start_s is None else self._start_s
        patience_s = 0.0 if self._plan.is_telling else _PATIENCE_S
        probe = ProbeTransfer(
            num_bytes=step.num_bytes,
            num_connections=step.num_connections,
            num_kept=step.num_kept,
            counts=step.counts,
            give_up_at_s=begun_s + self._limits.budget_s + patience_s,
            on_end=self._on_outcome,
        )
        self._links.probe(self._target.link_address, self._target.holder, probe)

    def _on_outcome(self, outcome: ProbeOutcome) -> None:
        self._transport = outcome.transport or self._transport
        if outcome.seconds is not None:
            if self._start_s is None:
                self._start_s = outcome.ended_s - outcome.seconds
            elapsed_s = outcome.ended_s - self._start_s
            self._plan.took(outcome.seconds, elapsed_s, can_split=outcome.transport == "tcp")
            self._send(self._plan.step)
        elif outcome.is_late:
            self._end("" if self._plan.is_telling else outcome.reason)
        else:
            self._plan.failed()
            self._send(self._plan.step, outcome.reason)

    def _end(self, error: str) -> None:
        num_connections = self._plan.num_connections if self._transport == "tcp" else 1
        self._links.split(self._target.holder, num_connections)
        start_s = self._start_s or 0.0
        samples = tuple(
            TransferSample(
                target=self._target.holder,
                transport=self._transport,
                num_bytes=sample.num_bytes,
                seconds=sample.seconds,
                ended_s=start_s + sample.ended_s,
            )
            for sample in self._plan.samples
        )
        probed = Probed(
            number=self._number,
            target=self._target.holder,
            transport=self._transport,
            samples=samples,
            num_connections=num_connections,
            error=error,
        )
        self._on_end(probed)
