"""Dispatch policies compared over the same requests and networks, without an engine."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from statistics import mean

import numpy as np
from rich.console import Console
from rich.table import Table

from cluster.role import InstanceRole
from cluster.topology.synthetic import measured
from cluster.topology.topology import Topology
from deploy.bench import dispatch_networks
from deploy.bench.dispatch_machine import Machine
from deploy.bench.dispatch_world import Served, World
from deploy.bench.report import write_json
from deploy.workload.arrivals import mean_rate, speed_up
from deploy.workload.request import WorkloadError, WorkloadRequest
from router.policies import DISPATCH_POLICIES

BY_LOAD = "least_loaded"
NETWORKS = {"unequal": dispatch_networks.unequal, "equal": dispatch_networks.equal}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """`choosing_ms`: of processor time, on the average. `peak_used`: of the memory of the fullest decode instance."""

    trace: str
    network: str
    policy: str
    mean_second_token_ms: float
    p50_second_token_ms: float
    p99_second_token_ms: float
    mean_ttft_ms: float
    p99_ttft_ms: float
    mean_e2el_s: float
    mean_sent_tokens: float
    peak_used: float
    choosing_ms: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Calculation:
    """`load`: what part of the time prefill instances compute, on the average, were nothing cached.

    `error`: how far off is what the router believes of each link, about, as a factor of 1 ± that.
    """

    load: float
    machine: Machine
    policies: Sequence[str]
    error: float = 0.0

    def compare(self, trace: str, requests: Sequence[WorkloadRequest]) -> Iterator[Row]:
        for network, make in NETWORKS.items():
            topology = make()
            roles = dispatch_networks.roles(topology)
            paced = self.paced(requests, sum(role is InstanceRole.PREFILL for role in roles.values()))
            for policy in self.policies:
                yield self.run(trace, network, policy, topology, roles, paced)

    def paced(self, requests: Sequence[WorkloadRequest], num_prefills: int) -> list[WorkloadRequest]:
        """The trace's own pattern, so fast that prefill is loaded as it is to be."""
        rate = mean_rate(requests)
        if rate is None:
            raise WorkloadError("the trace has no arrival times")
        busy_s = mean(self.machine.prefill_s(request.num_prompt_tokens) for request in requests)
        return speed_up(requests, self.load * num_prefills / busy_s / rate)

    def run(
        self,
        trace: str,
        network: str,
        policy: str,
        topology: Topology,
        roles: dict[str, InstanceRole],
        requests: Sequence[WorkloadRequest],
    ) -> Row:
        pairs = list(combinations([node.name for node in topology.nodes], 2))
        believed = measured(topology, pairs, self.error, np.random.default_rng(0))
        world = World(DISPATCH_POLICIES[policy](), topology, roles, self.machine, believed)
        return _row(trace, network, policy, world, world.run(requests))


def _row(trace: str, network: str, policy: str, world: World, served: Sequence[Served]) -> Row:
    gaps_ms = np.array([one.gap_s for one in served if one.second_token_s]) * 1e3
    ttfts_ms = np.array([one.ttft_s for one in served]) * 1e3
    return Row(
        trace=trace,
        network=network,
        policy=policy,
        mean_second_token_ms=float(gaps_ms.mean()),
        p50_second_token_ms=float(np.percentile(gaps_ms, 50)),
        p99_second_token_ms=float(np.percentile(gaps_ms, 99)),
        mean_ttft_ms=float(ttfts_ms.mean()),
        p99_ttft_ms=float(np.percentile(ttfts_ms, 99)),
        mean_e2el_s=mean(one.e2el_s for one in served),
        mean_sent_tokens=mean(one.num_sent_tokens for one in served),
        peak_used=max(world.peak_used.values()),
        choosing_ms=1e3 * mean(world.choosing_s),
    )


def change(rows: Sequence[Row], network: str, policy: str, trace: str | None = None) -> float:
    """Of the mean second token against load alone: -0.2 is 20 % less."""
    found = {row.policy: row for row in rows if row.network == network and trace in (None, row.trace)}
    return found[policy].mean_second_token_ms / found[BY_LOAD].mean_second_token_ms - 1.0


def print_rows(rows: Sequence[Row], console: Console) -> None:
    table = Table("network", "policy", *(f"second token {name}, ms" for name in ("mean", "p50", "p99")))
    for name in ("TTFT mean, ms", "TTFT p99", "E2EL, s", "KV sent, tokens", "fullest", "choosing, ms"):
        table.add_column(name, justify="right")
    for row in rows:
        figures = (row.mean_second_token_ms, row.p50_second_token_ms, row.p99_second_token_ms, row.mean_ttft_ms)
        rest = (f"{row.p99_ttft_ms:,.0f}", f"{row.mean_e2el_s:.3f}", f"{row.mean_sent_tokens:,.0f}")
        table.add_row(
            row.network,
            row.policy,
            *(f"{figure:,.1f}" for figure in figures),
            *rest,
            f"{row.peak_used:.0%}",
            f"{row.choosing_ms:.2f}",
        )
    console.print(table)
    for network in NETWORKS:
        for policy in dict.fromkeys(row.policy for row in rows):
            if policy != BY_LOAD:
                console.print(f"{network} links: {policy} {change(rows, network, policy):+.1%} mean second token")


def keep(path: Path, rows: Sequence[Row], calculation: Calculation) -> None:
    context = {"load": calculation.load, "error": calculation.error, "machine": asdict(calculation.machine)}
    write_json(path, {}, **context, rows=[asdict(row) for row in rows])
