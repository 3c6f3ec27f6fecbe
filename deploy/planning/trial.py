"""One simulation: whether a layout meets the SLOs at a rate."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from math import inf

import numpy as np

from cluster.latency.hardware import Hardware
from cluster.latency.saturation import saturation_tokens
from cluster.role import InstanceRole
from cluster.topology.topology import Topology
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.layout import Layout, Seated
from deploy.planner.goodput.question import Engine, Lengths, Slos
from deploy.planning.no_cost import NoCost
from deploy.planning.routing import Routing
from deploy.simulator.cluster import SimCluster, SimInstance
from deploy.simulator.recorder import RequestRecord
from deploy.simulator.simulate import simulate
from deploy.workload.request import WorkloadRequest

_FREE_TOKENS = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What all trials of a question have in common: the same requests in the same order, the same gaps between them.

    `interval_s`: requests arrive for so long, whatever the rate, and until there are `least_requests`; all of them are
    served to their ends. Those of the first `warm_up` of that time are not judged: they found nobody before them.
    """

    hardware: Mapping[str, Hardware]
    lengths: Lengths
    slos: Slos
    engine: Engine
    interval_s: float
    least_requests: int = 1
    warm_up: float = 0.25
    burstiness: float = 1.0
    seed: int = 0
    routing: Routing = field(default_factory=Routing)

    def longer(self, times: float) -> "Setting":
        """For so many times as long, and with so many times the requests."""
        return replace(self, interval_s=times * self.interval_s, least_requests=round(times * self.least_requests))

    def with_seed(self, seed: int) -> "Setting":
        """Other gaps, and the lengths in another order."""
        order = np.random.default_rng(seed).permutation(len(self.lengths.prompts))
        lengths = Lengths(prompts=self.lengths.prompts[order], outputs=self.lengths.outputs[order])
        return replace(self, seed=seed, lengths=lengths)


class _TooMany(Exception):
    """So many have missed their limits that the rest does not matter."""


def run_trial(
    setting: Setting, layout: Layout, rate: float, phase: str | None = None, *, to_the_end: bool = False
) -> Attainment:
    """`phase`: only that one counts, the other is for nothing. It ends once too many missed, unless `to_the_end`."""
    requests = list(_arrivals(setting, rate))
    judged_from_s = setting.warm_up * (requests[-1].arrival_s or 0.0)
    num_judged = sum((request.arrival_s or 0.0) >= judged_from_s for request in requests)
    tally = Tally(setting.slos, judged_from_s, num_judged, phase, to_the_end=to_the_end)
    instances = tuple(_instance(setting, seat, phase) for seat in layout.seats)
    topology = layout.topology if phase is None else _without_limits(layout.topology)
    routing = setting.routing
    cluster = SimCluster(
        instances=instances,
        topology=topology,
        policy=routing.policy,
        rescheduling=routing.rescheduling,
        handover=routing.handover,
        max_queued_requests=routing.max_queued_requests,
        seed=setting.seed,
    )
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
            if now_s > setting.interval_s and number >= setting.least_requests:
                return


class Tally:
    """A recorder that only counts, of the `num_requests` that arrive from `judged_from_s` on."""

    def __init__(
        self,
        slos: Slos,
        judged_from_s: float,
        num_requests: int,
        phase: str | None = None,
        *,
        to_the_end: bool = False,
    ) -> None:
        self._ttft_s = None if phase == "decode" else slos.ttft_s
        self._tpot_s = None if phase == "prefill" else slos.tpot_s
        self._judged_from_s, self._num_requests = judged_from_s, num_requests
        self._most_missed = inf if to_the_end else (1.0 - slos.attainment) * num_requests
        self._num_ended = self._num_missed = self._late = self._slow = 0
        self._is_cut_short = False

    def ended(self, record: RequestRecord) -> None:
        if record.arrival_s < self._judged_from_s:
            return
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
            self._is_cut_short = True
            raise _TooMany

    def waited(self, seconds: float, count: int) -> None:
        pass

    def attainment(self) -> Attainment:
        """Who was never answered met nothing. When it was cut short, all three are of those that had ended."""
        never = 0 if self._is_cut_short else self._num_requests - self._num_ended
        num = max(1, self._num_ended + never)
        ttft, tpot, both = (1.0 - (each + never) / num for each in (self._late, self._slow, self._num_missed))
        return Attainment(ttft=ttft, tpot=tpot, both=both, is_cut_short=self._is_cut_short)


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
        saturation_tokens=_FREE_TOKENS if is_free else saturation_tokens(model, engine.most_saturation_tokens),
        token_budget=pool.token_budget,
        enable_prefix_caching=False,
    )


def _without_limits(topology: Topology) -> Topology:
    nodes = topology.nodes
    return Topology(nodes, np.zeros((len(nodes),) * 2), np.full((len(nodes),) * 2, np.inf))
