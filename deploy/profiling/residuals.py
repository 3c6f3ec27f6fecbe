"""What models put together from kernels say, against what was measured end to end.

`python -m deploy.profiling.residuals` prints both, and by how much they differ: for the values that the models were
made to meet, and for OPT as DistServe measured it. With the path of splitwise_perf_model.csv.gz
(github.com/Mutinifni/splitwise-sim, MIT): for all of its Llama-2-70B, at TP2, TP4 and TP8.
"""

import csv
import gzip
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

from cluster.latency.distserve import DistServeHardware
from cluster.latency.hardware import Parallelism
from cluster.latency.named import hardware_named
from cluster.latency.step_shape import StepShape

LIMIT = 0.25


@dataclass(frozen=True, slots=True)
class Measured:
    """A step of `batch` sequences: whole prompts of `length` tokens, or decodes that have as much context each."""

    gpu: str
    shape: str
    tp: int
    phase: str
    length: int
    batch: int
    seconds: float

    @property
    def step(self) -> StepShape:
        if self.phase == "prefill":
            return StepShape(self.batch * self.length, float(self.batch * self.length**2))
        return StepShape(0, 0.0, self.batch, self.batch * self.length)

    def predicted_s(self) -> float:
        return sum(hardware_named(self.gpu, self.shape).model(Parallelism(self.tp)).stages_s(self.step))

    def residual(self) -> float:
        return self.predicted_s() / self.seconds - 1.0


def published() -> list[Measured]:
    """Llama-2-70B at TP8 (Splitwise); OPT-13B at TP1 by DistServe's fit, over what it was fitted to."""
    llama = {
        "a100": {"prefill": (93, 274, 1550), "decode": (45, 50, 72)},
        "h100": {"prefill": (54, 137, 845), "decode": (31, 34, 50)},
    }
    points = []
    for gpu, of_phase in llama.items():
        for length, ms in zip((512, 2048, 8192), of_phase["prefill"], strict=True):
            points.append(Measured(gpu, "llama-2-70b", 8, "prefill", length, 1, ms / 1e3))
        for batch, ms in zip((1, 16, 64), of_phase["decode"], strict=True):
            points.append(Measured(gpu, "llama-2-70b", 8, "decode", 512, batch, ms / 1e3))
    for n in (64, 128, 256, 512, 1024, 2048):
        points.append(Measured("a100", "opt-13b", 1, "prefill", n, 1, (18.1 + 0.102 * n + 7.1e-6 * n**2) / 1e3))
    for batch in (1, 16, 64):
        for n in (128, 512, 1024):
            points.append(
                Measured("a100", "opt-13b", 1, "decode", n, batch, (19.9 + 0.00063 * n * batch + 0.0385 * batch) / 1e3)
            )
    return points


def splitwise(file: Path) -> Iterator[Measured]:
    """The median of each five runs; 128 tokens were generated, so decodes have half as many more than their prompts."""
    runs = defaultdict(list)
    with gzip.open(file, "rt") as lines:
        for row in csv.DictReader(lines):
            if row["model"] == "llama2-70b" and row["token_size"] == "128" and not row["hardware"].endswith("pcap"):
                gpu, tp = row["hardware"].split("-")[0], int(row["tensor_parallel"])
                key = gpu, tp, int(row["prompt_size"]), int(row["batch_size"])
                runs[key].append((float(row["prompt_time"]), float(row["token_time"])))
    for (gpu, tp, length, batch), times in sorted(runs.items()):
        if (tp, batch) != (2, 64):  # did not fit: its prompts took less than those of two sequences
            prompt_ms, token_ms = (median(each) for each in zip(*times, strict=True))
            yield Measured(gpu, "llama-2-70b", tp, "prefill", length, batch, prompt_ms / 1e3)
            yield Measured(gpu, "llama-2-70b", tp, "decode", length + 64, batch, token_ms / 1e3)


def distserve() -> Iterator[Measured]:
    """OPT at every tensor parallelism that DistServe measured, on its own engine in C++: nothing was fitted to most."""
    for shape in ("opt-13b", "opt-66b"):
        measured = DistServeHardware(shape)
        for tp in sorted({each.tp for each in measured.parallelisms()}):
            for phase, length, batch in _STEPS:
                point = Measured("a100-graphs", shape, tp, phase, length, batch, 1.0)
                (seconds,) = measured.model(Parallelism(tp)).stages_s(point.step)
                yield replace(point, seconds=seconds)


_STEPS = [("prefill", length, 1) for length in (128, 512, 1024, 2048)]
_STEPS += [("decode", length, batch) for length in (512, 1024) for batch in (1, 16, 64)]


def table(points: Iterable[Measured]) -> Iterator[str]:
    yield "gpu         shape       TP phase   tokens batch   measured      model"
    residuals = []
    for each in points:
        residuals.append(each.residual())
        yield (
            f"{each.gpu:11} {each.shape:12} {each.tp:2} {each.phase:8} {each.length:6} {each.batch:5} "
            f"{each.seconds * 1e3:7.1f} ms {each.predicted_s() * 1e3:7.1f} ms {residuals[-1]:+6.1%}"
        )
    sizes = sorted(map(abs, residuals))
    over = sum(size > LIMIT for size in sizes)
    yield f"{len(sizes)} steps: median {median(sizes):.1%}, largest {sizes[-1]:.1%}; {over} of them over {LIMIT:.0%}"


if __name__ == "__main__":
    for points in [splitwise(Path(sys.argv[1]))] if len(sys.argv) > 1 else [published(), distserve()]:
        print(*table(points), sep="\n")
