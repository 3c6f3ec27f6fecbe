"""Why a unit lost, in a line."""

from deploy.planner.goodput.best_first import Tried
from deploy.planner.goodput.estimate import Attainment
from deploy.planner.goodput.plans import Lost
from deploy.planner.goodput.question import Slos


def why_lost(tried: Tried, best_per_gpu: float, slos: Slos) -> Lost:
    if tried.answer.rate:
        less = 1.0 - tried.per_gpu / best_per_gpu
        return Lost(unit=tried.candidate.unit, per_gpu=tried.per_gpu, why=f"{max(0.0, less):.0%} less per GPU")
    per_gpu = tried.above / tried.candidate.unit.num_gpus
    why = f"below {per_gpu:.3g} per GPU: {describe(tried.answer.attainment, slos)} there"
    return Lost(unit=tried.candidate.unit, per_gpu=0.0, why=why)


def describe(attainment: Attainment, slos: Slos) -> str:
    """Which limit was missed, by how many."""
    parts = []
    if slos.ttft_s is not None:
        parts.append(f"TTFT met by {attainment.ttft:.0%}")
    if slos.tpot_s is not None:
        parts.append(f"TPOT by {attainment.tpot:.0%}")
    return ", ".join(parts)
