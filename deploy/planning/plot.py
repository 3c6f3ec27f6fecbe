"""Plans as a picture: what the units that were simulated serve per GPU, and how that depends on bandwidth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from deploy.heat_map import require_matplotlib
from deploy.planner.goodput.plans import Plans, Scored
from deploy.planning.bandwidths import GBIT_PER_S, Swept

_SHOWN = 20
_NONE_GBITS, _ANY_GBITS = 1.0, 1000.0  # where no bandwidth and any bandwidth are drawn
_COLOURS = {True: "#ff7f0e", False: "#1f77b4"}


def write_plot(file: Path, title: str, plans: Plans, swept: Swept | None) -> None:
    """PNG."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scored = _best_of_each_split(plans.scored)
    figure = Figure(figsize=(9, 2.0 + 0.3 * len(scored) + (3.5 if swept else 0)), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    axes = figure.subplots(2 if swept else 1, 1, squeeze=False)[:, 0]
    _bars(axes[0], scored)
    if swept:
        _lines(axes[1], swept)
    figure.savefig(file, format="png", dpi=110)


def _best_of_each_split(scored: Sequence[Scored]) -> list[Scored]:
    found: dict[object, Scored] = {}
    for each in sorted(scored, key=lambda each: (each.per_gpu, each.bound_per_gpu)):
        found[each.unit.split] = each
    return sorted(found.values(), key=lambda each: (each.per_gpu, each.bound_per_gpu))[-_SHOWN:]


def _bars(axes: Any, scored: Sequence[Scored]) -> None:
    names = [str(each.unit) for each in scored]
    colours = [_COLOURS[each.unit.is_mixed] for each in scored]
    axes.barh(names, [each.per_gpu for each in scored], color=colours)
    bounds = axes.scatter([each.bound_per_gpu for each in scored], names, marker="|", s=90, color="black")
    bounds.set_label("bound; without a bar: simulated once, and no better than the best then")
    axes.set(xlabel="requests/s within the SLOs, per GPU", xlim=(0, None))
    axes.legend(loc="lower right", fontsize=7)


def _lines(axes: Any, swept: Swept) -> None:
    xs = [min(max(point.bytes_per_s / GBIT_PER_S, _NONE_GBITS), _ANY_GBITS) for point in swept.points]
    axes.plot(xs, [point.per_gpu for point in swept.points], marker="o", color=_COLOURS[False], label="apart")
    axes.axhline(swept.mixed_per_gpu, color=_COLOURS[True], label="colocated")
    shown = ""
    for x, point in zip(xs, swept.points, strict=True):
        name = " + ".join(f"{pool.role} {pool.parallelism}" for pool in point.unit.pools) if point.unit else "none"
        if name != shown:
            axes.annotate(name, (x, point.per_gpu), rotation=20, fontsize=7, xytext=(3, 6), textcoords="offset points")
        shown = name
    axes.set(
        xscale="log", xlabel="Gbit/s between nodes (left end: none, right end: any)", ylabel="per GPU", ylim=(0, None)
    )
    axes.legend(fontsize=8)
