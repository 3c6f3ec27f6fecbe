"""One simulation: whether a layout meets the SLOs at a rate."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from cluster.latency.hardware import Hardware
from cluster.role import InstanceRole
from cluster.topology.topology import Topology
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.layout import Layout, Seated
from deploy.planner.goodput.question import Engine, Lengths, Slos
from deploy.planner.goodput.saturation import saturation_tokens
from deploy.planning.no_cost import NoCost
from deploy.simulator.cluster import SimCluster, SimInstance
from deploy.simulator.recorder import RequestRecord
from deploy.simulator.simulate import simulate
from deploy.workload.request import WorkloadRequest

_FREE_TOKENS = 1 << 24


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What all trials of a question have in common: the same requests in the same order, the same gaps between them.

    `interval_s`: requests arrive for so long, whatever the rate; all of them are served to their ends.
    """

    hardware: Mapping[str, Hardware]
    lengths: Lengths
    slos: Slos
    engine: Engine
    interval_s: float
    burstiness: float = 1.0
    seed: int = 0


class _TooMany(Exception):
    """So many have missed their limits that the rest does not matter."""


def run_trial(setting: Setting, layout: Layout, rate: float, phase: str | None = None) -> Attainment:
    """`phase`: only that one counts, the other costs nothing. It ends as soon as too many have missed."""
    requests = list(_arrivals(setting, rate))
    tally = _Tally(setting.slos, len(requests), phase)
    instances = tuple(_instance(setting, seat, phase) for seat in layout.seats)
    topology = layout.topology if phase is None else _without_limits(layout.topology)
    cluster = SimCluster(instances=instances, topology=topology, seed=setting.seed)
    with suppress(_TooMany):
        simulate(cluster, requests, recorder=tally)
    return tally.attainment()


def _arrivals(setting: Setting, rate: float) -> Iterator[WorkloadRequest]:
    """Lengths in the order of the workload, over and over."""
    generator = np.random.default_rng(setting.seed)
    shape, now_s, number = setting.burstiness, 0.0, 0
    prompts, outputs = setting.lengths.prompts, setting.lengths.outputs
    while True:
        for gap in generator.gamma(shape, 1.0 / shape, 256):
            yield WorkloadRequest(
                arrival_s=now_s,
                num_prompt_tokens=int(prompts[number % len(prompts)]),
                num_output_tokens=int(outputs[number % len(outputs)]),
            )
            number += 1
            now_s += float(gap) / rate
            if now_s > setting.interval_s:
                return


class _Tally:
    """A recorder that only counts."""

    def __init__(self, slos: Slos, num_requests: int, phase: str | None) -> None:
        self._ttft_s = None if phase == "decode" else slos.ttft_s
        self._tpot_s = None if phase == "prefill" else slos.tpot_s
        self._num_requests = num_requests
        self._most_missed = (1.0 - slos.attainment) * num_requests
        self._num_ended = self._num_missed = self._late = self._slow = 0

    def ended(self, record: RequestRecord) -> None:
        self._num_ended += 1
        is_late = is_slow = bool(record.error) or record.is_cut_short
        if not is_late:
            steps = record.num_output_tokens - 1
            taken_s = record.last_token_s - record.first_token_s
            is_late = self._ttft_s is not None and record.first_token_s - record.arrival_s > self._ttft_s
            is_slow = self._tpot_s is not None and taken_s > self._tpot_s * steps
        self._late += is_late
        self._slow += is_slow
        self._num_missed += is_late or is_slow
        if self._num_missed > self._most_missed + 1e-9:
            raise _TooMany

    def waited(self, seconds: float, count: int) -> None:
        pass

    def attainment(self) -> Attainment:
        """Of those that were waited for; when it was cut short, all three are of those that had ended."""
        ended = max(1, self._num_ended)
        return Attainment(
            ttft=1.0 - self._late / ended, tpot=1.0 - self._slow / ended, both=1.0 - self._num_missed / ended
        )


def _instance(setting: Setting, seat: Seated, phase: str | None) -> SimInstance:
    pool, hardware = seat.pool, setting.hardware[seat.pool.kind]
    is_free = phase is not None and pool.role != phase
    model = NoCost() if is_free else hardware.model(pool.parallelism)
    num_tokens = _FREE_TOKENS if is_free else hardware.num_kv_tokens(pool.parallelism)
    engine = setting.engine
    return SimInstance(
        name=seat.name,
        role=InstanceRole(pool.role),
        node=seat.node,
        latency=model,
        num_blocks=num_tokens // engine.block_size,
        block_bytes=round(hardware.kv_bytes_per_token * engine.block_size),
        block_size=engine.block_size,
        max_model_len=num_tokens,
        max_num_seqs=4096 if is_free else engine.max_num_seqs,
        saturation_tokens=_FREE_TOKENS if is_free else saturation_tokens(model),
        token_budget=pool.token_budget,
        enable_prefix_caching=False,
    )


def _without_limits(topology: Topology) -> Topology:
    nodes = topology.nodes
    return Topology(nodes, np.zeros((len(nodes),) * 2), np.full((len(nodes),) * 2, np.inf))
