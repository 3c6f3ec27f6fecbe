"""Nodes and what lies between them, and how long a transfer will take next to what is in flight."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Self

import numpy as np
from numpy.typing import NDArray

from cluster.topology.in_flight import Indices, InFlight
from cluster.topology.link_model import LinkModel
from cluster.topology.sharing import max_min_rates

Matrix = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Node:
    """A host. `egress` and `ingress`: what all its flows to and from other nodes have together; None: not limited.

    `num_cpus` and the two memories: None when not known. `gpu_links`: rates between its GPUs in bytes/s, by rows;
    () when not measured. `group`: the nodes that it is like, for instance its rack.
    """

    name: str
    group: str = ""
    egress_bytes_per_s: float | None = None
    ingress_bytes_per_s: float | None = None
    num_gpus: int = 0
    num_cpus: float | None = None
    memory_bytes: int | None = None
    gpu_memory_bytes: int | None = None
    gpu_links: tuple[tuple[float, ...], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A transfer that is under way. `num_bytes`: still to come; None: it outlasts whatever it is compared with."""

    source: str
    target: str
    num_bytes: float | None = None


class UnknownNode(KeyError):
    def __str__(self) -> str:
        return f"the topology has no node {self.args[0]!r}"


class Topology:
    """`alpha_s` and `beta_bytes_per_s`: [num_nodes, num_nodes] from row to column, nan where a pair was not measured.

    The diagonal is a node with itself; not measured there means that nothing has to travel. Never changed once made.
    """

    def __init__(
        self, nodes: Sequence[Node], alpha_s: Matrix, beta_bytes_per_s: Matrix, residual: Matrix | None = None
    ) -> None:
        assert alpha_s.shape == beta_bytes_per_s.shape == (len(nodes), len(nodes))
        self.nodes = tuple(nodes)
        self.alpha_s, self.beta_bytes_per_s = alpha_s, beta_bytes_per_s
        self.residual = np.zeros_like(alpha_s) if residual is None else residual
        self._index = {node.name: index for index, node in enumerate(nodes)}
        self._egress = np.array([_or_inf(node.egress_bytes_per_s) for node in nodes])  # [num_nodes]
        self._ingress = np.array([_or_inf(node.ingress_bytes_per_s) for node in nodes])
        self._capacities: dict[Hashable, float] = {}
        for node in nodes:
            for way, rate in (("out", node.egress_bytes_per_s), ("in", node.ingress_bytes_per_s)):
                if rate is not None:
                    self._capacities[way, node.name] = rate

    @classmethod
    def of_links(cls, nodes: Sequence[Node], links: dict[tuple[str, str], LinkModel]) -> Self:
        index = {node.name: at for at, node in enumerate(nodes)}
        alpha_s, beta, residual = (np.full((len(nodes), len(nodes)), np.nan) for _ in range(3))
        for (source, target), model in links.items():
            at = _at(index, source), _at(index, target)
            alpha_s[at], beta[at], residual[at] = model.alpha_s, model.beta_bytes_per_s, model.residual
        return cls(nodes, alpha_s, beta, residual)

    def __len__(self) -> int:
        return len(self.nodes)

    def index(self, name: str) -> int:
        return _at(self._index, name)

    def node(self, name: str) -> Node:
        return self.nodes[self.index(name)]

    def link(self, source: str, target: str) -> LinkModel | None:
        """None where it was not measured."""
        at = self.index(source), self.index(target)
        beta = float(self.beta_bytes_per_s[at])
        if not isfinite(beta):
            return None
        residual = float(self.residual[at])
        return LinkModel(
            alpha_s=float(self.alpha_s[at]),
            beta_bytes_per_s=beta,
            residual=residual if isfinite(residual) else 0.0,
        )

    def missing(self) -> list[tuple[str, str]]:
        """Pairs of different nodes of which nothing is known."""
        rows, columns = np.nonzero(~np.isfinite(self.beta_bytes_per_s))
        names = [node.name for node in self.nodes]
        return [(names[row], names[column]) for row, column in zip(rows, columns, strict=True) if row != column]

    def rates(self, flows: Sequence[Flow]) -> list[float]:
        """bytes/s of each of these flows, with nothing else under way. A pair that was not measured: 0."""
        passes = [self.capacities(flow) for flow in flows]
        return max_min_rates(passes, {resource: rate for each in passes for resource, rate in each.items()})

    def capacities(self, flow: Flow) -> dict[Hashable, float]:
        """What the flow passes through, in bytes/s, by names that others who pass there have too."""
        link = self.link(flow.source, flow.target)
        if flow.source == flow.target:
            return {("link", flow.source, flow.target): link.beta_bytes_per_s} if link else {}
        found: dict[Hashable, float] = {("link", flow.source, flow.target): link.beta_bytes_per_s if link else 0.0}
        for resource in (("out", flow.source), ("in", flow.target)):
            if (rate := self._capacities.get(resource)) is not None:
                found[resource] = rate
        return found

    def share(self, flow: Flow, in_flight: Sequence[Flow]) -> float:
        """What part of the rate that it would have alone a flow has beside those."""
        alone = self.rates([flow])[0]
        return self.rates([flow, *in_flight])[0] / alone if 0.0 < alone < float("inf") else 1.0

    def predict(self, source: str, target: str, num_bytes: float, in_flight: Sequence[Flow] = ()) -> float:
        """Seconds that a transfer takes when it starts now; inf for a pair that was not measured.

        The flows in flight share with it max-min fairly, and leave as they come to their ends.
        """
        link = self.link(source, target)
        alpha_s = link.alpha_s if link else 0.0
        left = [float(num_bytes), *(flow.num_bytes if flow.num_bytes is not None else np.inf for flow in in_flight)]
        flows = [Flow(source=source, target=target), *in_flight]
        elapsed_s = 0.0
        while left[0] > 0.0:
            rates = self.rates(flows)
            if rates[0] == 0.0:
                return float("inf")
            ends_s = [num_bytes / rate if rate > 0.0 else np.inf for num_bytes, rate in zip(left, rates, strict=True)]
            step_s = min(ends_s)
            elapsed_s += step_s
            if ends_s[0] <= step_s:
                break
            stay = [index for index, end_s in enumerate(ends_s) if end_s > step_s]
            left = [left[index] - rates[index] * step_s for index in stay]
            flows = [flows[index] for index in stay]
        return alpha_s + elapsed_s

    def predict_all(self, num_bytes: float | Matrix, in_flight: Sequence[Flow] = ()) -> Matrix:
        """[num_nodes, num_nodes]: about what `predict` says, for all pairs at once, for choosing among many.

        `num_bytes` of each pair, or of all. Each resource by itself is shared evenly until the transfer ends, so that a
        flow in flight costs it no more than the bytes that it has left; the slowest resource decides. Where one flow
        leaves a share to others because it is held up elsewhere, this says too much.
        """
        nodes = np.arange(len(self))
        return self.predict_among(nodes, nodes, num_bytes, self.in_flight(in_flight))

    def predict_among(self, sources: Indices, targets: Indices, num_bytes: float | Matrix, beside: InFlight) -> Matrix:
        """[num_sources, num_targets]: the same among nodes given by their indices, each perhaps several times."""
        wanted = np.broadcast_to(np.asarray(num_bytes, float), (len(sources), len(targets)))
        on_link, out, into = beside.beside(wanted, sources, targets)
        is_local = sources[:, None] == targets
        nodes_s = np.maximum(out / self._egress[sources, None], into / self._ingress[targets])
        alpha_s, beta = (matrix[np.ix_(sources, targets)] for matrix in (self.alpha_s, self.beta_bytes_per_s))
        is_known = np.isfinite(beta)
        link_s = on_link / np.where(is_known, beta, np.inf)
        times_s = np.where(is_known, alpha_s, 0.0) + np.maximum(np.where(is_local, 0.0, nodes_s), link_s)
        return np.asarray(np.where(is_known | is_local, times_s, np.inf))

    def in_flight(self, flows: Sequence[Flow]) -> InFlight:
        return InFlight.of(
            (self.index(flow.source), self.index(flow.target), np.inf if flow.num_bytes is None else flow.num_bytes)
            for flow in flows
        )


def _or_inf(rate: float | None) -> float:
    return np.inf if rate is None else rate


def _at(index: dict[str, int], name: str) -> int:
    try:
        return index[name]
    except KeyError:
        raise UnknownNode(name) from None
