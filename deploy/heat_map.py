"""The links between nodes as a picture: how fast each is, and how long it takes to begin; from row to column."""

from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from cluster.pb import baton_pb2
from cluster.topology.topology import Matrix
from deploy.errors import InputError
from deploy.live_topology import is_measured

_MAX_LABELLED = 16  # nodes; beyond, cells are too small for numbers
_MARKS = {"degraded": ("#d62728", "degraded"), "unreachable": ("black", "nothing gets through")}


def require_matplotlib() -> None:
    """InputError where it is not installed: only pictures need it."""
    if find_spec("matplotlib") is None:
        raise InputError("a picture needs matplotlib: pip install 'baton[plot]'")


def write_heat_map(file: Path, title: str, nodes: Sequence[str], links: Iterable[baton_pb2.NodeLinkStatus]) -> None:
    """PNG."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    links = list(links)
    side = min(14.0, 3.0 + 0.55 * len(nodes))
    figure = Figure(figsize=(2 * side, side + 0.6), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    bandwidth, latency = _matrix(nodes, links, "beta_bytes_per_s") / 1e6, _matrix(nodes, links, "alpha_s") * 1e3
    for axes, what, values, colours, note in (
        (left, "bandwidth, MB/s; transport × samples", bandwidth, "viridis", _samples),
        (right, "latency, ms; age", latency, "viridis_r", _age),
    ):
        image = _draw(axes, what, nodes, values, colours)
        figure.colorbar(image, ax=axes, shrink=0.8)
        if len(nodes) <= _MAX_LABELLED:
            _label(axes, image, values, {_at(nodes, link): note(link) for link in links})
        marks = _mark(axes, nodes, links)
    if marks:
        figure.legend(list(marks.values()), list(marks), loc="outside lower center", ncols=2, frameon=False)
    figure.savefig(file, format="png", dpi=110)


def _samples(link: baton_pb2.NodeLinkStatus) -> str:
    return f"{link.transport or '?'} × {link.num_samples}"


def _age(link: baton_pb2.NodeLinkStatus) -> str:
    return f"{link.age_s:.0f} s"


def _at(nodes: Sequence[str], link: baton_pb2.NodeLinkStatus) -> tuple[int, int]:
    return nodes.index(link.source_node), nodes.index(link.target_node)


def _matrix(nodes: Sequence[str], links: Iterable[baton_pb2.NodeLinkStatus], field: str) -> Matrix:
    """[num_nodes, num_nodes], nan where nothing is known."""
    index = {node: at for at, node in enumerate(nodes)}
    values = np.full((len(nodes), len(nodes)), np.nan)
    for link in links:
        if is_measured(link):
            values[index[link.source_node], index[link.target_node]] = getattr(link, field)
    return values


def _draw(axes: Any, title: str, nodes: Sequence[str], values: Matrix, colours: str) -> Any:
    from matplotlib.colors import LogNorm

    known = values[np.isfinite(values) & (values > 0.0)]
    low, high = (known.min(), known.max()) if len(known) else (1.0, 1.0)
    axes.set_facecolor("#dddddd")
    shown = np.ma.masked_invalid(np.maximum(values, low))
    image = axes.imshow(shown, cmap=colours, norm=LogNorm(low * 0.999, high * 1.001))
    axes.set(title=title, xlabel="to", ylabel="from")
    if len(nodes) <= 4 * _MAX_LABELLED:
        axes.set_xticks(range(len(nodes)), nodes, rotation=90)
        axes.set_yticks(range(len(nodes)), nodes)
    return image


def _label(axes: Any, image: Any, values: Matrix, notes: Mapping[tuple[int, int], str]) -> None:
    for (row, column), note in notes.items():
        value = values[row, column]
        if np.isfinite(value):
            red, green, blue, _ = image.cmap(image.norm(max(value, image.norm.vmin)))
            colour = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else "black"
            text = f"{value:.0f}" if value >= 100.0 else f"{value:.3g}"
            axes.text(column, row, f"{text}\n{note}", ha="center", va="center", fontsize=7, color=colour)


def _mark(axes: Any, nodes: Sequence[str], links: Iterable[baton_pb2.NodeLinkStatus]) -> dict[str, Any]:
    """What is wrong has a frame; returned is one of each kind, by what it means."""
    from matplotlib.patches import Rectangle

    marks = {}
    for link in links:
        if link.state in _MARKS:
            colour, meaning = _MARKS[link.state]
            row, column = _at(nodes, link)
            frame = Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor=colour, linewidth=2.5)
            marks[meaning] = axes.add_patch(frame)
    return marks
