"""The links between nodes as a picture: how fast each is, and how long it takes to begin; from row to column."""

from collections.abc import Iterable, Sequence
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
    _draw(figure, left, "bandwidth, MB/s", nodes, links, _matrix(nodes, links, "beta_bytes_per_s") / 1e6, "viridis")
    _draw(figure, right, "latency, ms", nodes, links, _matrix(nodes, links, "alpha_s") * 1e3, "viridis_r")
    figure.savefig(file, format="png", dpi=110)


def _matrix(nodes: Sequence[str], links: Iterable[baton_pb2.NodeLinkStatus], field: str) -> Matrix:
    """[num_nodes, num_nodes], nan where nothing is known."""
    index = {node: at for at, node in enumerate(nodes)}
    values = np.full((len(nodes), len(nodes)), np.nan)
    for link in links:
        if is_measured(link):
            values[index[link.source_node], index[link.target_node]] = getattr(link, field)
    return values


def _draw(
    figure: Any,
    axes: Any,
    title: str,
    nodes: Sequence[str],
    links: Iterable[baton_pb2.NodeLinkStatus],
    values: Matrix,
    colours: str,
) -> None:
    from matplotlib.colors import LogNorm

    known = values[np.isfinite(values) & (values > 0.0)]
    low, high = (known.min(), known.max()) if len(known) else (1.0, 1.0)
    norm = LogNorm(low * 0.999, high * 1.001)
    axes.set_facecolor("#dddddd")
    image = axes.imshow(np.ma.masked_invalid(np.maximum(values, low)), cmap=colours, norm=norm)
    figure.colorbar(image, ax=axes, shrink=0.8)
    axes.set(title=title, xlabel="to", ylabel="from")
    if len(nodes) <= 4 * _MAX_LABELLED:
        axes.set_xticks(range(len(nodes)), nodes, rotation=90)
        axes.set_yticks(range(len(nodes)), nodes)
    if len(nodes) <= _MAX_LABELLED:
        _label(axes, links, nodes, values, image)
    _mark(axes, links, nodes)


def _label(
    axes: Any, links: Iterable[baton_pb2.NodeLinkStatus], nodes: Sequence[str], values: Matrix, image: Any
) -> None:
    transports = {(link.source_node, link.target_node): link.transport for link in links}
    for row, source in enumerate(nodes):
        for column, target in enumerate(nodes):
            value = values[row, column]
            if np.isfinite(value):
                text = f"{value:.3g}\n{transports.get((source, target), '')}".strip()
                red, green, blue, _ = image.cmap(image.norm(max(value, image.norm.vmin)))
                is_dark = 0.3 * red + 0.6 * green + 0.1 * blue < 0.5
                axes.text(
                    column, row, text, ha="center", va="center", fontsize=7, color="white" if is_dark else "black"
                )


def _mark(axes: Any, links: Iterable[baton_pb2.NodeLinkStatus], nodes: Sequence[str]) -> None:
    """What is wrong has a frame; what the frames mean is said once."""
    from matplotlib.patches import Rectangle

    index = {node: at for at, node in enumerate(nodes)}
    named = {}
    for link in links:
        if link.state in _MARKS:
            colour, name = _MARKS[link.state]
            corner = index[link.target_node] - 0.5, index[link.source_node] - 0.5
            frame = Rectangle(corner, 1, 1, fill=False, edgecolor=colour, linewidth=2.5)
            named[name] = axes.add_patch(frame)
    if named:
        axes.legend(list(named.values()), list(named), loc="upper center", bbox_to_anchor=(0.5, -0.18), frameon=False)
