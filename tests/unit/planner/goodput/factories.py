"""Questions about small clusters, and evaluators that answer in closed form."""

from dataclasses import replace
from functools import cache

import numpy as np

from cluster.latency.distserve import DistServeHardware
from cluster.latency.hardware import Parallelism
from cluster.topology.topology import Node, Topology
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.estimator import Estimator
from deploy.planner.goodput.question import Lengths, Question, Slos
from deploy.planner.goodput.unit import PoolPlan, Unit

GBPS = 1e9 / 8
OPT_13B, OPT_66B = DistServeHardware("opt-13b"), DistServeHardware("opt-66b")
CHAT = {OPT_13B: Slos(ttft_s=0.2, tpot_s=0.1), OPT_66B: Slos(ttft_s=2.5, tpot_s=0.15)}


@cache
def sharegpt_like(num_requests=150):
    """Lengths with about the percentiles of ShareGPT's: prompts of 760 tokens on the average, outputs of 190."""
    rng = np.random.default_rng(1)
    at = [0.0, 0.1, 0.5, 0.9, 0.99, 1.0]
    prompts = np.interp(rng.random(num_requests), at, [4, 60, 680, 1543, 1922, 2000])
    outputs = np.interp(rng.random(num_requests), at, [2, 8, 77, 507, 968, 1500])
    return Lengths(prompts=prompts.round(), outputs=outputs.round())


class Slower(DistServeHardware):
    """The same GPUs at a part of their speed."""

    @property
    def name(self):
        return "slower/opt-13b"

    def model(self, parallelism):
        found = super().model(parallelism)
        prefill = replace(
            found.prefill,
            fixed_s=found.prefill.fixed_s * self.factor,
            s_per_token=found.prefill.s_per_token * self.factor,
            s_per_square=found.prefill.s_per_square * self.factor,
        )
        decode = tuple(
            replace(
                cost,
                fixed_s=cost.fixed_s * self.factor,
                s_per_context_token=cost.s_per_context_token * self.factor,
                s_per_sequence=cost.s_per_sequence * self.factor,
            )
            for cost in found.decode
        )
        return replace(found, prefill=prefill, decode=decode)


def slower(factor):
    kind = type("SlowerBy", (Slower,), {"factor": factor, "__hash__": object.__hash__})
    return kind("opt-13b")


def make_topology(num_nodes=4, num_gpus=8, *, between=25 * GBPS, slow=(), within=2e11):
    nodes = [Node(name=f"n{at}", num_gpus=num_gpus, group=f"r{at}") for at in range(num_nodes)]
    beta = np.full((num_nodes, num_nodes), between)
    for at in slow:
        beta[at, :] /= 20
        beta[:, at] /= 20
    np.fill_diagonal(beta, within)
    return Topology(nodes, np.full((num_nodes, num_nodes), 1e-4), beta)


def make_question(hardware=OPT_13B, topology=None, *, lengths=None, slos=None, others=None, **given):
    """`others`: hardware of nodes that have another, by name."""
    topology = make_topology() if topology is None else topology
    return Question(
        topology=topology,
        hardware={node.name: (others or {}).get(node.name, hardware) for node in topology.nodes},
        lengths=lengths or sharegpt_like(),
        slos=slos or CHAT.get(hardware, Slos(ttft_s=1.0, tpot_s=0.1)),
        **given,
    )


def estimated(question):
    """An evaluator."""
    return Estimator(Catalogue(question), question.slos, question.request_bytes).evaluate


def make_unit(prefill, decode, *, kind=OPT_13B.name):
    """Of (tp, number) for prefill and for decode."""
    pools = (
        PoolPlan(role=role, parallelism=Parallelism(tp), num_instances=number, kind=kind)
        for role, (tp, number) in (("prefill", prefill), ("decode", decode))
    )
    return Unit(pools=tuple(pools))
