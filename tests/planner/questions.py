"""What is asked here: ShareGPT's lengths on nodes of A100s, by DistServe's coefficients."""

import os
from pathlib import Path

import numpy as np

from cluster.latency.distserve import DistServeHardware
from cluster.topology.topology import Node, Topology
from deploy.planner.goodput.question import Lengths, Question, Slos
from deploy.workload.read import read_workload

FILE = "distserve_sharegpt_opt13b_rate16.csv.gz"
FOLDER = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[3] / "shared/traces"))
CHAT = {"opt-13b": Slos(ttft_s=0.2, tpot_s=0.1), "opt-66b": Slos(ttft_s=2.5, tpot_s=0.15)}

_WITHIN, _BETWEEN = 228e9, 25e9 / 8  # bytes/s: of NVLink, and of a cable


def question(
    model: str, num_nodes: int, num_gpus: int, *, between: float = _BETWEEN, with_call_overhead: bool = False
) -> Question:
    """OSError where the lengths are not to be had."""
    nodes = [Node(name=f"n{at}", num_gpus=num_gpus) for at in range(num_nodes)]
    beta = np.full((num_nodes, num_nodes), between)
    np.fill_diagonal(beta, _WITHIN)
    hardware = DistServeHardware(model, with_call_overhead=with_call_overhead)
    requests = read_workload(FOLDER / FILE)
    return Question(
        topology=Topology(nodes, np.full_like(beta, 1e-5), beta),
        hardware={node.name: hardware for node in nodes},
        lengths=Lengths(
            prompts=np.array([float(each.num_prompt_tokens) for each in requests]),
            outputs=np.array([float(each.num_output_tokens) for each in requests]),
        ),
        slos=CHAT[model],
    )
