"""What a simulated cluster did over time, and how many requests met their SLOs at each rate, as pictures."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from deploy.heat_map import require_matplotlib
from deploy.simulating.rates import AtRate
from deploy.simulator.report import HandoverSample, Report, TimelineSample

_NUM_BINS = 250
_MAX_LINKS = 8  # those that moved most have a line of their own, the others one together


def write_timeline(file: Path, title: str, report: Report) -> None:
    """PNG. InputError where matplotlib is not installed."""
    figure, axes = _figure(title, 5, 2.2)
    times_s = [sample.at_s for sample in report.timeline]
    pools, queues, memory, links, handovers = axes
    names = list(dict.fromkeys(_pool(instance.name) for instance in report.instances))
    for pool in names:
        pools.plot(times_s, _sums(report.timeline, pool, "num_running"), label=pool, drawstyle="steps-post")
        queues.plot(times_s, _sums(report.timeline, pool, "num_waiting"), label=pool, drawstyle="steps-post")
        memory.plot(times_s, _means(report.timeline, pool), label=pool, drawstyle="steps-post")
    queues.plot(times_s, [sample.num_queued for sample in report.timeline], label="router", color="black", lw=1)
    for name, rates in _link_rates(report):
        links.plot(_binned(times_s), [rate / 1e9 for rate in _binned(rates)], label=name, drawstyle="steps-mid")
    _draw_handovers(handovers, report.handover_log)
    for each, label in zip(axes, ("running", "waiting", "KV in use", "links, GB/s", "handovers"), strict=True):
        _finish(each, label)
    memory.set_ylim(0.0, 1.05)
    axes[-1].set_xlabel("seconds")
    figure.savefig(file, format="png", dpi=110)


def write_rates(file: Path, title: str, found: Sequence[AtRate], target: float | None) -> None:
    """PNG: the share of requests that met their SLOs, all of them and one by one, against the rate."""
    figure, (axes,) = _figure(title, 1, 4.5)
    rates = [each.rate for each in found]
    axes.plot(rates, [each.attainment for each in found], "o-", color="black", label="all SLOs")
    for name in found[0].attainment_of if len(found[0].attainment_of) > 1 else ():
        axes.plot(rates, [each.attainment_of[name] for each in found], "o--", lw=1, label=name)
    if target is not None:
        axes.axhline(target, color="grey", lw=1, ls=":", label=f"wanted: {target:.0%}")
    axes.set(xlabel="requests/s", ylim=(-0.02, 1.02))
    _finish(axes, "share of requests")
    figure.savefig(file, format="png", dpi=110)


def _figure(title: str, num_rows: int, row_inches: float) -> tuple[Any, Sequence[Any]]:
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, row_inches * num_rows + 0.8), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(title)
    return figure, list(figure.subplots(num_rows, 1, sharex=True, squeeze=False)[:, 0])


def _finish(axes: Any, label: str) -> None:
    axes.set_ylabel(label)
    axes.grid(alpha=0.3)
    axes.set_ylim(bottom=0.0)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(loc="upper left", bbox_to_anchor=(1.0, 1.0), fontsize=8, frameon=False)


def _pool(instance: str) -> str:
    return instance.rsplit("-", 1)[0]


def _sums(timeline: Iterable[TimelineSample], pool: str, field: str) -> list[int]:
    return [
        sum(getattr(instance, field) for instance in sample.instances if _pool(instance.name) == pool)
        for sample in timeline
    ]


def _means(timeline: Iterable[TimelineSample], pool: str) -> list[float]:
    """Of those that are there."""
    uses = [[instance.kv_use for instance in sample.instances if _pool(instance.name) == pool] for sample in timeline]
    return [sum(use) / len(use) if use else 0.0 for use in uses]


def _link_rates(report: Report) -> list[tuple[str, list[float]]]:
    """A name, and the rate at each sample."""
    by_bytes = sorted(report.links, key=lambda link: -link.num_bytes)
    pairs = [(link.source, link.target) for link in by_bytes if link.num_bytes]
    shown, others = pairs[:_MAX_LINKS], set(pairs[_MAX_LINKS:])
    found = [
        (f"{source} → {target}", [sample.link_rates.get((source, target), 0.0) for sample in report.timeline])
        for source, target in shown
    ]
    if others:
        rest = [sum(rate for pair, rate in each.link_rates.items() if pair in others) for each in report.timeline]
        found.append((f"{len(others)} others", rest))
    return found


def _binned(values: Sequence[float]) -> list[float]:
    """Means of neighbours: links are busy for moments, which no line could follow."""
    size = max(1, len(values) // _NUM_BINS)
    return [sum(values[at : at + size]) / len(values[at : at + size]) for at in range(0, len(values), size)]


def _draw_handovers(axes: Any, log: Sequence[HandoverSample]) -> None:
    """How many are under way, by reason; those that were given up have a mark when they were."""
    for reason in Counter(each.reason for each in log):
        times_s, numbers = _under_way([each for each in log if each.reason == reason])
        axes.plot(times_s, numbers, label=reason, drawstyle="steps-post")
    if failed := [each.ended_s for each in log if each.error]:
        axes.plot(failed, [0.0] * len(failed), "x", color="#d62728", label="given up", clip_on=False)


def _under_way(log: Sequence[HandoverSample]) -> tuple[list[float], list[int]]:
    changes = sorted([(each.began_s, 1) for each in log] + [(each.ended_s, -1) for each in log])
    return [at_s for at_s, _ in changes], list(accumulate(change for _, change in changes))
