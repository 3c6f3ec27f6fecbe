"""What measures links from one node: a process there."""

from collections.abc import Sequence
from typing import Protocol

from cluster.links.probe.node import ProbeTarget
from cluster.messages import Probed


class Prober(Protocol):
    """Calls may be under way side by side. MemberFailed when the process is gone."""

    async def start(self) -> ProbeTarget:
        """What others are given to reach it."""
        ...

    async def probe(self, target: ProbeTarget, budget_s: float) -> Probed: ...

    async def probe_within(self, budget_s: float) -> Probed:
        """The link inside the node."""
        ...

    async def flood(self, targets: Sequence[ProbeTarget], seconds: float) -> float:
        """bytes/s to all of them together. MemberFailed when none can be reached."""
        ...

    async def stop(self) -> None: ...

    def kill(self) -> None: ...
