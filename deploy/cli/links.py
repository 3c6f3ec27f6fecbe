"""The links between nodes, as `baton status` and `baton probe` print them."""

from collections.abc import Iterable, Sequence
from statistics import median
from typing import TYPE_CHECKING

from cluster.spec.quantity import format_count
from deploy.durations import format_duration
from deploy.live_topology import is_measured

if TYPE_CHECKING:
    from rich.table import Table

    from cluster.pb import baton_pb2

_MAX_COLUMNS = 12
_MAX_ROWS = 64

_STYLES = {"good": "", "unknown": "dim", "degraded": "bold red", "unreachable": "bold white on red"}


def format_rate(bytes_per_s: float) -> str:
    for unit, size in (("GB/s", 1e9), ("MB/s", 1e6)):
        if bytes_per_s >= size:
            return f"{bytes_per_s / size:.3g} {unit}"
    return f"{bytes_per_s / 1e3:.3g} kB/s"


def matrix(nodes: "Sequence[baton_pb2.NodeStatus]", links: "Sequence[baton_pb2.NodeLinkStatus]") -> "Table | None":
    """From row to column; None for more nodes than fit on a line, and when there is nothing to show."""
    from rich.table import Table

    names = [node.node for node in nodes]
    if not links or len(names) > _MAX_COLUMNS:
        return None
    found = {(link.source_node, link.target_node): link for link in links}
    has_totals = any(node.egress_bytes_per_s or node.ingress_bytes_per_s for node in nodes)
    table = Table("from \\ to", *names, *(["out in all"] if has_totals else []), box=None, pad_edge=False)
    for node in nodes:
        cells = [_cell(found.get((node.node, name))) for name in names]
        table.add_row(node.node, *cells, *([_total(node.egress_bytes_per_s)] if has_totals else []))
    if has_totals:
        table.add_row("in in all", *(_total(node.ingress_bytes_per_s) for node in nodes), "")
    return table


def _cell(link: "baton_pb2.NodeLinkStatus | None") -> str:
    if link is None:
        return "-"
    text = format_rate(link.beta_bytes_per_s) if is_measured(link) else "?"
    if link.state in ("degraded", "unreachable"):
        text = f"{link.state} {text}" if link.state == "degraded" else link.state
    style = _STYLES.get(link.state, "")
    return f"[{style}]{text}[/]" if style else text


def _total(bytes_per_s: float) -> str:
    return format_rate(bytes_per_s) if bytes_per_s else "-"


def summary(nodes: "Sequence[baton_pb2.NodeStatus]", links: "Sequence[baton_pb2.NodeLinkStatus]") -> list[str]:
    """A line on all of them, and one for each that something is wrong with; `links` may be no others."""
    if len(links) < (num_known := sum(node.num_known_links for node in nodes)):
        middle = median(node.median_link_bytes_per_s for node in nodes if node.num_known_links)
        return [f"{between(num_known, len(nodes))} are measured, median {format_rate(middle)}", *_complaints(links)]
    if not links:
        return []
    measured = [link for link in links if is_measured(link)]
    usual = f", median {format_rate(median(link.beta_bytes_per_s for link in measured))}" if measured else ""
    unknown = len(links) - len(measured)
    rest = f", {unknown} of them without a measurement" if unknown else ""
    return [f"{between(len(links), len(nodes))}{usual}{rest}", *_complaints(links)]


def between(num_links: int, num_nodes: int) -> str:
    return f"{format_count(num_links, 'link')} between {format_count(num_nodes, 'node')}"


def _complaints(links: "Sequence[baton_pb2.NodeLinkStatus]") -> list[str]:
    lines = []
    for link in links:
        if link.state == "degraded":
            lines.append(f"{_ends(link)} is degraded: {format_rate(link.beta_bytes_per_s)}")
        elif link.state == "unreachable":
            lines.append(f"{_ends(link)}: nothing gets through: {link.error}")
    return lines


def table(links: "Sequence[baton_pb2.NodeLinkStatus]") -> "Table":
    """What is wrong first, then the slowest."""
    from rich.table import Table

    shown = Table("link", "transport", "connections", "latency", "bandwidth", "± fit", "samples", "age", "state")
    urgency = ("unreachable", "degraded")
    by_need = sorted(links, key=lambda link: (link.state not in urgency, link.beta_bytes_per_s))
    for link in by_need[:_MAX_ROWS]:
        shown.add_row(*_row(link), style=_STYLES.get(link.state, ""))
    if len(links) > _MAX_ROWS:
        shown.caption = f"{_MAX_ROWS} of {len(links)}: what is wrong, and the slowest; --json has all"
    return shown


def _row(link: "baton_pb2.NodeLinkStatus") -> Iterable[str]:
    if not is_measured(link):
        return _ends(link), link.transport or "-", "-", "-", "-", "-", "-", "-", _state(link)
    return (
        _ends(link),
        link.transport or "-",
        str(link.num_connections or "-"),
        format_duration(link.alpha_s),
        format_rate(link.beta_bytes_per_s),
        f"{link.residual:.0%}",
        str(link.num_samples),
        f"{link.age_s:.0f} s",
        _state(link),
    )


def _ends(link: "baton_pb2.NodeLinkStatus") -> str:
    within = link.source_node == link.target_node
    return f"within {link.source_node}" if within else f"{link.source_node} → {link.target_node}"


def _state(link: "baton_pb2.NodeLinkStatus") -> str:
    return f"{link.state}: {link.error}" if link.error else link.state
