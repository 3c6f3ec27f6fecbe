"""What flows under way add to a transfer's bytes on each resource that it passes, for many transfers at once."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

Indices = NDArray[np.intp]
_Bytes = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class InFlight:
    """[num_flows] each: from which node, to which (by their indices), and the bytes still to come; inf: no end."""

    sources: Indices
    targets: Indices
    left: _Bytes

    @classmethod
    def of(cls, flows: Iterable[tuple[int, int, float]]) -> Self:
        sources, targets, left = zip(*flows, strict=True) if (flows := list(flows)) else ((), (), ())
        return cls(np.array(sources, np.intp), np.array(targets, np.intp), np.array(left, float))

    def beside(self, wanted: _Bytes, sources: Indices, targets: Indices) -> tuple[_Bytes, _Bytes, _Bytes]:
        """[num_sources, num_targets] each: what the link, the egress and the ingress have to move until `wanted` has.

        A resource that is shared evenly moves as much for each flow as for the transfer, or all that the flow has left.
        Within a node only the link itself counts.
        """
        on_link, out, into = wanted.copy(), wanted.copy(), wanted.copy()
        crossing = self.sources != self.targets
        at, flow = np.nonzero(sources[:, None] == self.sources)
        extra = np.minimum(wanted[at], self.left[flow, None])
        np.add.at(on_link, at, np.where(targets == self.targets[flow, None], extra, 0.0))
        np.add.at(out, at, np.where(crossing[flow, None], extra, 0.0))
        at, flow = np.nonzero((targets[:, None] == self.targets) & crossing)
        np.add.at(into.T, at, np.minimum(wanted[:, at], self.left[flow]).T)
        return on_link, out, into
