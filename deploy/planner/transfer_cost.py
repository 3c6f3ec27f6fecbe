"""The predicted mean time of a transfer from prefill to decode, for any assignment of instances to nodes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cluster.topology.topology import Topology
from deploy.planner.placement import Counts, Floats, PoolNeeds, Traffic

Places = NDArray[np.intp]


class TransferCost:
    """Of counts [num_pools, num_nodes].

    From node n to m, `alpha + bytes / rate`, where the rate is the least of what the link, n's egress and m's ingress
    leave to one flow when the expected number of others passes there too: a capacity over 1 + others. Others are the
    other prefill instances' flows, each spread evenly over all decode instances. (In this steady picture that is
    where max-min sharing puts a flow at its bottleneck, but for what other flows cannot use there.)
    """

    def __init__(self, topology: Topology, pools: Sequence[PoolNeeds], traffic: Traffic) -> None:
        self._alpha_s, per_byte = _filled(topology)
        self._link_s = per_byte * traffic.request_bytes  # [num_nodes, num_nodes]: on the link alone
        self._alpha_to, self._link_to = (np.ascontiguousarray(matrix.T) for matrix in (self._alpha_s, self._link_s))
        self._out_s, self._in_s = (
            np.array([traffic.request_bytes / rate if rate else 0.0 for rate in rates])
            for rates in (
                [node.egress_bytes_per_s for node in topology.nodes],
                [node.ingress_bytes_per_s for node in topology.nodes],
            )
        )
        self.in_flight = traffic.num_in_flight
        self.prefills = np.array([pool.can_prefill for pool in pools], np.int64)
        self.decodes = np.array([pool.can_decode for pool in pools], np.int64)
        sizes = np.array([pool.num_instances for pool in pools])
        self.num_prefill = int(sizes @ self.prefills)
        self.num_decode = int(sizes @ self.decodes)
        self._num_pairs = max(1, self.num_prefill * self.num_decode)
        self.num_nodes = len(topology)

    def mean_s(self, counts: Counts) -> float:
        """Over all pairs of a prefill and another decode instance, as predicted among all others."""
        sources, targets, _ = self._roles(counts)
        return float(self._sum(counts, np.nonzero(sources)[0], np.nonzero(targets)[0])) / self._num_pairs

    def means_s(self, many: Counts) -> Floats:
        """[num_assignments], of counts [num_assignments, num_pools, num_nodes]; for few nodes."""
        everywhere = np.arange(self.num_nodes)
        return np.asarray(self._sum(many, everywhere, everywhere) / self._num_pairs)

    def changes_s(self, counts: Counts, many: Counts, nodes: Places) -> Floats:
        """[num_assignments]: by how much the mean is another with many [num_assignments, num_pools, num_nodes].

        They differ from `counts` on nodes [num_assignments, 1 or 2] only, two different ones: much cheaper than all.
        """
        before = np.broadcast_to(counts, many.shape)
        return np.asarray((self._around(many, nodes) - self._around(before, nodes)) / self._num_pairs)

    def times_s(self, counts: Counts, rows: Places, columns: Places) -> Floats:
        """[..., num_rows, num_columns]: a transfer from node to node."""
        sources, targets, _ = self._roles(counts)
        near = np.maximum(sources[..., rows] - 1, 0)[..., :, None] * self.in_flight  # other flows from the same node
        far = np.maximum(self.num_prefill - sources[..., columns] - 1, 0)[..., None, :] * self.in_flight
        share = targets / max(1, self.num_decode)  # the part of all flows that goes to a node
        block = np.ix_(rows, columns)
        link_s = self._link_s[block] * (1.0 + near * share[..., None, columns])
        out_s = self._out_s[rows][:, None] * (1.0 + near * (1.0 - share[..., rows, None]))
        in_s = self._in_s[columns][None, :] * (1.0 + far * share[..., None, columns])
        network_s = np.maximum(link_s, np.maximum(out_s, in_s))
        return np.asarray(self._alpha_s[block] + np.where(np.equal.outer(rows, columns), link_s, network_s))

    def alone_s(self) -> Floats:
        """[num_nodes, num_nodes]: a transfer with nothing else under way."""
        network = np.maximum(self._link_s, np.maximum(self._out_s[:, None], self._in_s[None, :]))
        np.fill_diagonal(network, np.diag(self._link_s))
        return np.asarray(self._alpha_s + network)

    def parts_s(self) -> tuple[Floats, Floats, Floats, Floats]:
        """alpha and the time on the link alone [num_nodes, num_nodes]; at egress and at ingress alone [num_nodes]."""
        return self._alpha_s, self._link_s, self._out_s, self._in_s

    def _roles(self, counts: Counts) -> tuple[Counts, Counts, Counts]:
        """Prefill, decode and both-at-once instances on each node."""
        roles = (self.prefills, self.decodes, self.prefills * self.decodes)
        sources, targets, both = (np.einsum("k,...kn->...n", role, counts) for role in roles)
        return sources, targets, both

    def _sum(self, counts: Counts, rows: Places, columns: Places) -> Floats:
        """[...]: over pairs with their source in these rows, their target in these columns; none sends to itself."""
        sources, targets, both = self._roles(counts)
        pairs = sources[..., rows, None] * targets[..., None, columns]
        pairs = pairs - np.where(np.equal.outer(rows, columns), both[..., rows, None], 0)
        return np.asarray((self.times_s(counts, rows, columns) * pairs).sum(axis=(-2, -1)))

    def _around(self, many: Counts, nodes: Places) -> Floats:
        """[num_assignments]: the sum over pairs with source or target on these nodes. As `_sum`, but by assignment."""
        sources, targets, both = self._roles(many)
        here = np.arange(len(many))[:, None], nodes
        near = np.maximum(sources - 1, 0) * self.in_flight
        share = targets / max(1, self.num_decode)
        out_s = self._out_s * (1.0 + near * (1.0 - share))
        in_s = self._in_s * (1.0 + np.maximum(self.num_prefill - sources - 1, 0) * self.in_flight * share)

        link_s = self._link_s[nodes] * (1.0 + near[here][..., None] * share[:, None, :])  # [.., nodes, all]
        times_s = np.maximum(link_s, np.maximum(out_s[here][..., None], in_s[:, None, :]))
        pairs = sources[here][..., None] * targets[:, None, :]
        itself = here[0], np.arange(nodes.shape[1])[None, :], nodes
        times_s[itself] = link_s[itself]
        pairs[itself] -= both[here]
        total = ((times_s + self._alpha_s[nodes]) * pairs).sum(axis=(1, 2))

        elsewhere = sources.copy()
        elsewhere[here] = 0
        link_s = self._link_to[nodes] * (1.0 + near[:, None, :] * share[here][..., None])
        times_s = np.maximum(link_s, np.maximum(out_s[:, None, :], in_s[here][..., None]))
        pairs = elsewhere[:, None, :] * targets[here][..., None]
        return np.asarray(total + ((times_s + self._alpha_to[nodes]) * pairs).sum(axis=(1, 2)))


def _filled(topology: Topology) -> tuple[Floats, Floats]:
    """alpha and seconds per byte. Within a node not measured: nothing has to travel."""
    alpha_s = topology.alpha_s.copy()
    per_byte = 1.0 / topology.beta_bytes_per_s
    for matrix in (alpha_s, per_byte):
        diagonal = np.diag(matrix).copy()
        np.fill_diagonal(matrix, np.where(np.isfinite(diagonal), diagonal, 0.0))
    if missing := topology.missing():
        source, target = missing[0]
        raise ValueError(f"the topology says nothing of {len(missing)} links, such as {source} -> {target}")
    return alpha_s, per_byte
