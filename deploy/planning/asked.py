"""The question that a deployment's file and what was typed beside it ask."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cluster.latency.fitted import FittedHardware
from cluster.latency.hardware import Hardware
from cluster.latency.saturation import MEASURED_TOKENS
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Node, Topology
from deploy.errors import InputError
from deploy.planner.goodput.question import Engine, Lengths, Question, Slos
from deploy.simulating.machines import machines_of
from deploy.workload.request import WorkloadRequest

_MAX_LENGTHS = 2000
_ASSUMED_PROMPT, _ASSUMED_OUTPUT = 2048, 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """`gpus`: "h100", or "rack1=h100" for the nodes of a group and "n3=h100" for one; the first that names it counts.

    `slos_ms`: None: the file's own. `attainment` likewise.
    """

    gpus: tuple[str, ...] = ()
    model_shape: str | None = None
    latency: Path | None = None
    rate: float | None = None
    num_gpus: int | None = None
    allow_pp: bool = False
    slos_ms: Mapping[str, float] | None = None
    attainment: float | None = None


def question_of(
    deployment: Deployment, topology: Topology, requests: Sequence[WorkloadRequest], asked: Asked
) -> Question:
    """InputError for names that nothing has; Infeasible for a question that asks for nothing."""
    hardware = _hardware(deployment, topology.nodes, asked)
    on_gpu = asked.latency is None
    return Question(
        topology=topology if on_gpu else _with_seats(deployment, topology),
        hardware=hardware,
        lengths=_lengths(requests),
        slos=slos_of(deployment, asked),
        rate=asked.rate,
        num_gpus=asked.num_gpus,
        allow_pp=asked.allow_pp,
        engine=_gpu_engine(deployment) if on_gpu else _engine(deployment),
    )


def too_long(requests: Sequence[WorkloadRequest], question: Question) -> str:
    """Which of them no instance holds that may be built: they are refused, and count as missed. "": none."""
    most = question.most_tokens
    found = [
        number
        for number, request in enumerate(requests, 1)
        if request.num_prompt_tokens + request.num_output_tokens > most
    ]
    if not found:
        return ""
    return (
        f"{len(found)} of {len(requests)} requests are longer than {most:,} tokens, which no instance holds: "
        f"they count as missed (the first is number {found[0]})"
    )


def too_many_gpus(question: Question) -> str:
    """ "": there are as many as may be used."""
    if question.num_gpus is None or question.num_gpus <= question.total_gpus:
        return ""
    return f"--gpus {question.num_gpus}: there are {question.total_gpus}"


def slos_of(deployment: Deployment, asked: Asked) -> Slos:
    own = deployment.spec.slos
    given = asked.slos_ms if asked.slos_ms else {"ttft": own.ttft_ms, "tpot": own.tpot_ms}
    if unknown := set(given) - {"ttft", "tpot"}:
        raise InputError(f"plans are made for ttft and tpot; {min(unknown)} is neither")
    ttft_ms, tpot_ms = given.get("ttft"), given.get("tpot")
    if ttft_ms is None and tpot_ms is None:
        raise InputError("nothing says how fast requests have to be served: give the file spec.slos, or --goodput")
    return Slos(
        ttft_s=None if ttft_ms is None else ttft_ms / 1e3,
        tpot_s=None if tpot_ms is None else tpot_ms / 1e3,
        attainment=asked.attainment or own.attainment,
    )


def burstiness_of(requests: Sequence[WorkloadRequest]) -> float:
    """1 / CV² of the gaps between arrivals, as a Gamma's shape; 1 (Poisson) where the file has no times."""
    times = [request.arrival_s for request in requests if request.arrival_s is not None]
    if len(times) < 10 or times[-1] <= times[0]:
        return 1.0
    gaps = np.diff(times)
    variation = float(np.std(gaps) / np.mean(gaps))
    return float(np.clip(1.0 / max(variation, 1e-3) ** 2, 0.05, 4.0))


def _lengths(requests: Sequence[WorkloadRequest]) -> Lengths:
    """A sample in an order of its own, so that any stretch of it stands for the whole."""
    if not requests:
        return Lengths(prompts=np.full(1, float(_ASSUMED_PROMPT)), outputs=np.full(1, float(_ASSUMED_OUTPUT)))
    order = np.random.default_rng(0).permutation(len(requests))[:_MAX_LENGTHS]
    return Lengths(
        prompts=np.array([float(requests[at].num_prompt_tokens) for at in order]),
        outputs=np.array([float(requests[at].num_output_tokens) for at in order]),
    )


def _hardware(deployment: Deployment, nodes: Sequence[Node], asked: Asked) -> dict[str, Hardware]:
    named = [text.rpartition("=") for text in asked.gpus]
    places = {node.name for node in nodes} | {node.group for node in nodes} - {""}
    for place, is_for, _ in named:
        if is_for and place not in places:
            known = ", ".join(sorted(places)[:8])
            raise InputError(f"--gpu {place}=...: no node or group is called {place!r}; there are {known}")
    if not named:
        hardware = machines_of(deployment, None, asked.model_shape, asked.latency).hardware
        return {node.name: _as_deployed(hardware, deployment) for node in nodes}
    kinds = {gpu: machines_of(deployment, gpu, asked.model_shape, asked.latency).hardware for _, _, gpu in named}
    found: dict[str, Hardware] = {}
    for node in nodes:
        gpu = next((gpu for place, _, gpu in named if place in (node.name, node.group) and place), None)
        gpu = gpu or next((gpu for place, is_for, gpu in named if not is_for), None)
        if gpu is None:
            raise InputError(f"no --gpu says what {node.name} has; give one without a name for all the others")
        found[node.name] = kinds[gpu]
    return found


def _as_deployed(hardware: Hardware, deployment: Deployment) -> Hardware:
    """A profile says how long steps take; how much KV memory there is says the deployment."""
    if isinstance(hardware, FittedHardware):
        return replace(hardware, kv_memory_bytes=deployment.spec.pools[0].engine.kv_cache_memory_bytes)
    return hardware


def _gpu_engine(deployment: Deployment) -> Engine:
    """As the first pool says; what it does not say is as usual on GPUs."""
    engine = deployment.spec.pools[0].engine
    given = {name: getattr(engine, name) for name in ("max_num_seqs", "block_size") if name in engine.model_fields_set}
    budgets = tuple(budget for budget in Engine().mixed_budgets if budget >= given.get("max_num_seqs", 0))
    return Engine(**given, mixed_budgets=budgets or (given["max_num_seqs"] + 512,))


def _engine(deployment: Deployment) -> Engine:
    """With as many tokens a step as instances find out when they start."""
    engine = deployment.spec.pools[0].engine
    budgets = tuple(engine.max_num_seqs + chunk for chunk in (64, 128, 256, 512))
    return Engine(
        max_num_seqs=engine.max_num_seqs,
        block_size=engine.block_size,
        most_saturation_tokens=min(MEASURED_TOKENS, deployment.spec.model.max_model_len or MEASURED_TOKENS),
        mixed_budgets=budgets,
    )


def _with_seats(deployment: Deployment, topology: Topology) -> Topology:
    """Without GPUs an instance has its CPUs to itself: a node has as many seats as it has CPUs for them."""
    cpus = max(pool.resources.cpus for pool in deployment.spec.pools)
    usual = -(-sum(pool.replicas for pool in deployment.spec.pools) // len(topology.nodes))
    nodes = [
        replace(node, num_gpus=int(node.num_cpus / cpus) if node.num_cpus is not None and cpus else usual)
        for node in topology.nodes
    ]
    return Topology(nodes, topology.alpha_s, topology.beta_bytes_per_s, topology.residual)
