"""The comparison of plans as bars."""

from collections.abc import Sequence
from pathlib import Path

from deploy.bench.plan_rows import PLANS, Row
from deploy.heat_map import require_matplotlib

_WIDTH = 0.8 / len(PLANS)


def write_bars(file: Path, rows: Sequence[Row]) -> None:
    """PNG: a panel for each case, goodput per GPU of each plan on each network. InputError without matplotlib."""
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cases = list(dict.fromkeys(row.case for row in rows))
    figure = Figure(figsize=(10.0, 2.2 * len(cases) + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, case in zip(figure.subplots(len(cases), 1, squeeze=False)[:, 0], cases, strict=True):
        own = [row for row in rows if row.case == case]
        for place, plan in enumerate(PLANS):
            found = [row.per_gpu(plan) for row in own]
            at = [number + (place - (len(PLANS) - 1) / 2) * _WIDTH for number in range(len(own))]
            margins = [each.margin for each in found]
            axes.bar(at, [each.mean for each in found], _WIDTH, yerr=margins, label=plan, error_kw={"lw": 1})
        axes.set_xticks(range(len(own)), [row.network for row in own])
        axes.set_title(case, fontsize=10, loc="left")
        axes.grid(axis="y", alpha=0.3)
    figure.supylabel("requests/s within the limits, per GPU", fontsize=9)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(PLANS), frameon=False)
    figure.savefig(file, format="png", dpi=110)
