"""Nodes and links as a running deployment tells of them, from and to a topology that can be saved and placed by."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from cluster.pb import baton_pb2
from cluster.topology.link_model import LinkModel
from cluster.topology.topology import Node, Topology
from router.links.rows import LinkRow, NodeRow, link_rows_to_pb, node_rows_to_pb

if TYPE_CHECKING:
    from deploy.probing.survey import Survey


def topology_of(nodes: Iterable[baton_pb2.NodeStatus], links: Iterable[baton_pb2.NodeLinkStatus]) -> Topology:
    """Links of which nothing is known, or over which nothing gets, are missing."""
    models = {(link.source_node, link.target_node): _model(link) for link in links if is_measured(link)}
    return Topology.of_links([_node(node) for node in nodes], models)


def is_measured(link: baton_pb2.NodeLinkStatus) -> bool:
    return link.beta_bytes_per_s > 0.0 and link.state != "unreachable"


def _model(link: baton_pb2.NodeLinkStatus) -> LinkModel:
    return LinkModel(alpha_s=link.alpha_s, beta_bytes_per_s=link.beta_bytes_per_s, residual=link.residual)


def _node(node: baton_pb2.NodeStatus) -> Node:
    return Node(
        name=node.node,
        group=node.group,
        egress_bytes_per_s=node.egress_bytes_per_s or None,
        ingress_bytes_per_s=node.ingress_bytes_per_s or None,
        num_gpus=node.num_gpus,
        num_cpus=node.num_cpus or None,
        memory_bytes=node.memory_bytes or None,
        gpu_memory_bytes=node.gpu_memory_bytes or None,
    )


def progress_of(survey: "Survey") -> baton_pb2.ProbeProgress:
    """A survey without a deployment, told as if one had made it. A link without samples was completed from others."""
    topology, rows = survey.topology, []
    for source in topology.nodes:
        for target in topology.nodes:
            if model := topology.link(source.name, target.name):
                found = survey.links.get((source.name, target.name))
                row = LinkRow(
                    pair=(source.name, target.name),
                    transport=found.transport if found else "",
                    alpha_s=model.alpha_s,
                    beta_bytes_per_s=model.beta_bytes_per_s,
                    residual=model.residual,
                    state="good",
                    num_samples=found.num_samples if found else 0,
                    num_connections=found.num_connections if found else 0,
                )
                rows.append(row)
    rows += [LinkRow(pair=(cut.source, cut.target), state="unreachable", error=cut.why) for cut in survey.unreachable]
    surveyed = {node.name for node in topology.nodes}
    silent = dict.fromkeys(end for cut in survey.unreachable for end in (cut.source, cut.target) if end not in surveyed)
    nodes = [*topology.nodes, *(Node(name=name) for name in silent)]
    return baton_pb2.ProbeProgress(
        num_links=len(rows),
        num_done=len(rows),
        num_failed=len(survey.unreachable),
        done=True,
        links=link_rows_to_pb(rows),
        nodes=node_rows_to_pb(NodeRow(node=node, instances=()) for node in nodes),
    )
