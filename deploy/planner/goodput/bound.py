"""What no unit can exceed: by what its instances can compute, and by what links can carry between them."""

from collections.abc import Mapping
from math import inf

import numpy as np

from deploy.planner.goodput.estimate import RatesOf, speed
from deploy.planner.goodput.layout import Layout
from deploy.planner.goodput.max_flow import MaxFlow
from deploy.planner.goodput.unit import Unit


def compute_bound(unit: Unit, rates_of: RatesOf) -> float:
    """Requests a second: what its prefill instances can together, and its decode instances."""
    totals: dict[str, float] = {}
    for pool in unit.pools:
        totals[pool.role] = totals.get(pool.role, 0.0) + pool.num_instances * speed(pool, rates_of(pool))
    mixed = totals.pop("mixed", 0.0)
    return min(totals.values(), default=0.0) + mixed


def layout_bound(layout: Layout, rates_of: RatesOf, request_bytes: float) -> float:
    """Both bounds."""
    return min(compute_bound(layout.unit, rates_of), transfer_bound(layout, rates_of, request_bytes))


def transfer_bound(layout: Layout, rates_of: RatesOf, request_bytes: float) -> float:
    """Requests a second through computing and links at once: a maximum flow, from prefill over nodes' links to decode.

    As if each request went the best way there is; within a node over its own link.
    """
    prefill, decode = (_by_node(layout, rates_of, role) for role in ("prefill", "decode"))
    if not prefill or not decode:
        return inf
    flow = MaxFlow()
    topology = layout.topology
    for name, rate in prefill.items():
        flow.connect("source", ("prefill", name), rate)
        egress = topology.node(name).egress_bytes_per_s
        flow.connect(("prefill", name), ("out", name), inf if egress is None else egress / request_bytes)
    for name, rate in decode.items():
        flow.connect(("decode", name), "sink", rate)
        ingress = topology.node(name).ingress_bytes_per_s
        flow.connect(("into", name), ("decode", name), inf if ingress is None else ingress / request_bytes)
    for source in prefill:
        for target in decode:
            beta = topology.beta_bytes_per_s[topology.index(source), topology.index(target)]
            if source == target:
                rate = inf if np.isnan(beta) else float(beta) / request_bytes
                flow.connect(("prefill", source), ("decode", target), rate)
            elif np.isfinite(beta) or beta == inf:
                flow.connect(("out", source), ("into", target), float(beta) / request_bytes)
    return flow.value("source", "sink")


def _by_node(layout: Layout, rates_of: RatesOf, role: str) -> Mapping[str, float]:
    found: dict[str, float] = {}
    for seat in layout.seats:
        if seat.pool.role == role:
            found[seat.node] = found.get(seat.node, 0.0) + min(1e9, speed(seat.pool, rates_of(seat.pool)))
    return found
