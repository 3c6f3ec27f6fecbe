"""Why a unit lost, in a line."""

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.plans import Lost
from deploy.planner.goodput.question import Slos


def why_lost(tried: Tried, top: Tried, slos: Slos) -> Lost:
    """`top`: the unit that serves most per GPU of all that were tried."""
    unit = tried.candidate.unit
    if tried.answer.rate is None:
        above = tried.above / unit.num_gpus
        return Lost(
            unit=unit, per_gpu=0.0, why=f"below {above:.3g} per GPU: {describe(tried.answer.attainment, slos)} there"
        )
    less = 1.0 - tried.per_gpu / top.per_gpu
    why = (
        f"{less:.0%} less per GPU than {top.candidate.unit}" if less >= 0.005 else "as much by itself, less as a whole"
    )
    return Lost(unit=unit, per_gpu=tried.per_gpu, why=why)


def why_more_gpus(tried: Tried, num_gpus: int, slos: Slos) -> Lost:
    """Of a unit that was asked to serve a rate. `num_gpus`: of the plan that serves it."""
    unit = tried.candidate.unit
    if tried.answer.rate is None:
        missed = describe(tried.answer.attainment, slos)
        return Lost(unit=unit, per_gpu=0.0, why=f"does not serve it with {unit.num_gpus} GPUs: {missed}")
    more = unit.num_gpus - num_gpus
    why = f"serves it with {unit.num_gpus} GPUs, {more} more" if more > 0 else "serves it with as many GPUs, too"
    return Lost(unit=unit, per_gpu=tried.per_gpu, why=why)


def describe(attainment: Attainment, slos: Slos) -> str:
    """Which limit was missed, by how many."""
    parts = []
    if slos.ttft_s is not None:
        parts.append(f"TTFT met by {attainment.ttft:.0%}")
    if slos.tpot_s is not None:
        parts.append(f"TPOT by {attainment.tpot:.0%}")
    return ", ".join(parts) + (" of the first to end" if attainment.is_cut_short else "")
