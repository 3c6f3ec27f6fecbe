"""Topologies as text that people read and edit; `read.py` says what it looks like, and reads it back."""

import json
from math import isfinite
from typing import Any

import numpy as np

from cluster.topology.topology import Node, Topology


def format_topology(topology: Topology) -> str:
    """JSON with a line for each node and link, which is YAML as well. Links that were not measured are left out."""
    nodes = [_node_text(node) for node in topology.nodes]
    rows, columns = np.nonzero(np.isfinite(topology.beta_bytes_per_s))
    links = []
    for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
        link = {
            "source": topology.nodes[row].name,
            "target": topology.nodes[column].name,
            "alpha_s": _rounded(topology.alpha_s[row, column]),
            "beta_bytes_per_s": _rounded(topology.beta_bytes_per_s[row, column]),
            "residual": _rounded(topology.residual[row, column]),
        }
        links.append({key: value for key, value in link.items() if value is not None})
    lists = {
        key: ",\n".join(f"    {json.dumps(entry)}" for entry in entries)
        for key, entries in (("nodes", nodes), ("links", links))
    }
    parts = [f'  "{key}": [\n{lines}\n  ]' if lines else f'  "{key}": []' for key, lines in lists.items()]
    return '{\n  "apiVersion": "baton/v1",\n  "kind": "Topology",\n' + ",\n".join(parts) + "\n}\n"


def _node_text(node: Node) -> dict[str, Any]:
    facts: dict[str, Any] = {
        "name": node.name,
        "group": node.group or None,
        "gpus": node.num_gpus or None,
        "cpus": node.num_cpus,
        "memory": node.memory_bytes,
        "gpu_memory": node.gpu_memory_bytes,
        "egress_bytes_per_s": _rounded(node.egress_bytes_per_s),
        "ingress_bytes_per_s": _rounded(node.ingress_bytes_per_s),
        "gpu_links": node.gpu_links or None,
    }
    return {key: value for key, value in facts.items() if value is not None}


def _rounded(value: float | None) -> float | None:
    """To what measuring can tell."""
    return float(f"{value:.6g}") if value is not None and isfinite(value) else None
