"""What the planner is asked."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from math import inf

import numpy as np
from numpy.typing import NDArray

from cluster.latency.hardware import DoesNotFit, Hardware, UnknownParallelism
from cluster.topology.topology import Topology

Floats = NDArray[np.float64]


class Infeasible(ValueError):
    """No deployment on these nodes can do it: the text says which constraint binds, and by how much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Slos:
    """None: not asked for. `attainment`: the share of requests that have to meet both."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    attainment: float = 0.9


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Lengths:
    """Tokens of the workload's requests, [num_requests] each; every output has one at least."""

    prompts: Floats
    outputs: Floats

    def __post_init__(self) -> None:
        if not len(self.prompts):
            raise Infeasible("the workload holds no request")


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What all instances have in common. `mixed_budgets`: the tokens a step that mixed instances are tried with.

    `most_saturation_tokens`: no more are tried to find out with how many prompts are computed fastest.
    """

    max_num_seqs: int = 256
    block_size: int = 16
    most_saturation_tokens: int = 8192
    mixed_budgets: tuple[int, ...] = (256, 512, 1024, 2048)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """`hardware`: of each node, by its name; nodes of one kind have one object.

    `rate`: requests a second to be served with the fewest GPUs; None: as many per GPU as can be. `num_gpus`: at most.
    `runnable_only`: no plan that `baton up` cannot run.
    `pairs_only`: copies of one prefill and one decode instance, as DistServe's Algorithm 2 has them.
    """

    topology: Topology
    hardware: Mapping[str, Hardware]
    lengths: Lengths
    slos: Slos
    rate: float | None = None
    num_gpus: int | None = None
    allow_pp: bool = False
    runnable_only: bool = False
    pairs_only: bool = False
    engine: Engine = Engine()

    def __post_init__(self) -> None:
        if not self.topology.nodes:
            raise Infeasible("there is no node to plan for")
        if not any(node.num_gpus for node in self.topology.nodes):
            raise Infeasible("the nodes have no GPU: the topology says gpus: 0 of all of them")
        if self.rate is not None and not 0.0 < self.rate < inf:
            raise Infeasible(f"a rate of {self.rate:g} requests a second asks for nothing that can be planned")
        if self.slos.ttft_s is None and self.slos.tpot_s is None:
            raise Infeasible("goodput needs an SLO: a limit for TTFT or TPOT")

    @property
    def request_bytes(self) -> float:
        """KV of the mean prompt, of those that an instance can hold."""
        prompts, lengths = self.lengths.prompts, self.lengths.prompts + self.lengths.outputs
        is_held = lengths <= self.most_tokens
        most = max(hardware.kv_bytes_per_token for hardware in self.hardware.values())
        return float(prompts[is_held].mean() if is_held.any() else prompts.min()) * most

    @property
    def most_tokens(self) -> int:
        """Prompt and output that the largest instance holds which may be built; 0: none fits."""
        largest: dict[str, tuple[Hardware, int]] = {}
        for node in self.topology.nodes:
            hardware = self.hardware[node.name]
            _, size = largest.get(hardware.name, (hardware, 0))
            largest[hardware.name] = hardware, max(size, min(node.num_gpus, self.total_gpus))
        return max(self._most_tokens(hardware, size) for hardware, size in largest.values())

    def _most_tokens(self, hardware: Hardware, num_gpus: int) -> int:
        found = 0
        for parallelism in hardware.parallelisms():
            if parallelism.num_gpus <= num_gpus and (self.allow_pp or parallelism.pp == 1):
                with suppress(DoesNotFit, UnknownParallelism):
                    found = max(found, hardware.num_kv_tokens(parallelism))
        return found

    @property
    def total_gpus(self) -> int:
        there = sum(node.num_gpus for node in self.topology.nodes)
        return there if self.num_gpus is None else min(there, self.num_gpus)
