"""What plans are compared on: models and limits with the lengths of a workload, and networks of four nodes."""

import csv
import gzip
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cluster.latency.gpus import gpu_named
from cluster.topology.topology import Matrix, Node, Topology
from deploy.workload.read import read_workload

GBIT = 1e9 / 8
NUM_NODES = 4
_ALPHA_S = 24e-6  # from node to node, as in cluster/latency/gpus.py
_OPT_CONTEXT, _LLAMA_CONTEXT = 2048, 8192


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`gpu` and `shape` by the names of cluster/latency. `limits_ms`: TTFT and TPOT. `context`: tokens at most."""

    name: str
    workload: str
    gpu: str
    shape: str
    limits_ms: tuple[float, float]
    context: int
    gpus_per_node: int = 8


# The limits of the DistServe paper (OSDI'24, table 1). It has none for Llama-3-70B, which gets those of OPT-66B.
CASES = (
    Case(
        name="OPT-13B chat",
        workload="ShareGPT",
        gpu="distserve-a100",
        shape="opt-13b",
        limits_ms=(250.0, 100.0),
        context=_OPT_CONTEXT,
    ),
    Case(
        name="OPT-66B chat",
        workload="ShareGPT",
        gpu="distserve-a100",
        shape="opt-66b",
        limits_ms=(2500.0, 150.0),
        context=_OPT_CONTEXT,
    ),
    Case(
        name="OPT-66B code",
        workload="HumanEval",
        gpu="distserve-a100",
        shape="opt-66b",
        limits_ms=(125.0, 200.0),
        context=_OPT_CONTEXT,
    ),
    Case(
        name="OPT-66B summaries",
        workload="LongBench",
        gpu="distserve-a100",
        shape="opt-66b",
        limits_ms=(15_000.0, 150.0),
        context=_OPT_CONTEXT,
    ),
    Case(
        name="Llama-3-70B chat",
        workload="ShareGPT",
        gpu="h100",
        shape="llama-3-70b",
        limits_ms=(2500.0, 150.0),
        context=_LLAMA_CONTEXT,
    ),
    Case(
        name="Llama-3-70B code",
        workload="HumanEval",
        gpu="h100",
        shape="llama-3-70b",
        limits_ms=(125.0, 200.0),
        context=_LLAMA_CONTEXT,
    ),
    Case(
        name="Llama-3-70B summaries",
        workload="LongBench",
        gpu="h100",
        shape="llama-3-70b",
        limits_ms=(15_000.0, 150.0),
        context=_LLAMA_CONTEXT,
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """`cables`: of each node, in Gbit/s, each way."""

    name: str
    cables: tuple[float, ...]

    @property
    def is_unequal(self) -> bool:
        return len(set(self.cables)) > 1


NETWORKS = (
    *(Network(name=f"{rate} Gbit/s", cables=(float(rate),) * NUM_NODES) for rate in (10, 25, 100, 400)),
    Network(name="100, one at 10", cables=(100.0,) * (NUM_NODES - 1) + (10.0,)),
)

QUICK_CASE = Case(
    name="OPT-13B chat, two nodes of two GPUs",
    workload="ShareGPT",
    gpu="distserve-a100",
    shape="opt-13b",
    limits_ms=(250.0, 100.0),
    context=_OPT_CONTEXT,
    gpus_per_node=2,
)
QUICK_NETWORK = Network(name="25 Gbit/s", cables=(25.0, 25.0))


def topology_of(case: Case, network: Network) -> Topology:
    """One cable a node for all that it sends, and for all that it gets; between its GPUs what their kind has."""
    wire = gpu_named(case.gpu.removeprefix("distserve-")).in_node
    cables = np.array(network.cables) * GBIT
    nodes = [
        Node(
            name=f"n{at}", num_gpus=case.gpus_per_node, egress_bytes_per_s=float(rate), ingress_bytes_per_s=float(rate)
        )
        for at, rate in enumerate(cables)
    ]
    beta = np.minimum(cables[:, None], cables[None, :])
    alpha_s = np.full_like(beta, _ALPHA_S)
    np.fill_diagonal(beta, wire.beta_bytes_per_s)
    np.fill_diagonal(alpha_s, wire.alpha_s)
    return Topology(nodes, alpha_s, beta)


def lengths_of(case: Case, folder: Path) -> Matrix:
    """[num_requests, 2]: tokens of prompts and outputs, within the model's context."""
    return _READERS[case.workload](folder, case.context)


def _sharegpt(folder: Path, context: int) -> Matrix:
    """For OPT as DistServe took them: those of less than 2,048 tokens; for longer contexts with the chat's history."""
    name = "distserve_sharegpt_opt13b_rate16" if context <= _OPT_CONTEXT else "sharegpt_8k_lengths_llama2"
    lengths = _table(folder / f"{name}.csv.gz")
    return np.asarray(lengths[lengths.sum(axis=1) <= context])


def _humaneval(folder: Path, context: int) -> Matrix:
    return _table(folder / "humaneval_lengths_opt.csv.gz")


# Of the words that LongBench counts; its Chinese tasks count characters. The paper cuts prompts to the context, and
# so do others: what is left is for the output.
_TOKENS_PER_WORD = 1.35
_LEFT_FOR_OUTPUT = 248


def _longbench(folder: Path, context: int) -> Matrix:
    with gzip.open(folder / "longbench_v1_lengths.csv.gz", "rt") as lines:
        rows = [(float(row["context_length_words"]), float(row["answer_tokens_opt"])) for row in csv.DictReader(lines)]
    words, answers = np.array(rows).T
    prompts = np.minimum(np.round(words * _TOKENS_PER_WORD), context - _LEFT_FOR_OUTPUT)
    return np.asarray(np.maximum(np.column_stack([prompts, np.minimum(answers, _LEFT_FOR_OUTPUT)]), 1.0))


def _table(file: Path) -> Matrix:
    requests = read_workload(file)
    return np.array([(request.num_prompt_tokens, request.num_output_tokens) for request in requests], float)


_READERS: dict[str, Callable[[Path, int], Matrix]] = {
    "ShareGPT": _sharegpt,
    "HumanEval": _humaneval,
    "LongBench": _longbench,
}
