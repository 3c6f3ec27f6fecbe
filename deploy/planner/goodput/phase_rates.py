"""What one instance can serve of a workload at most, in closed form; and what its steps then look like.

In the long run: all that comes has to be computed, but for requests longer than KV memory: they are refused, cost
nothing, and count as missed. Full steps are taken to be the cheapest; at most 1 - attainment of the work is done in
steps that take too long.
"""

from dataclasses import dataclass
from functools import cached_property
from math import inf

import numpy as np
from numpy.typing import NDArray

from cluster.latency.hardware import Hardware, Parallelism
from cluster.latency.latency_model import LatencyModel
from cluster.latency.saturation import saturation_tokens
from cluster.latency.step_shape import StepShape
from deploy.planner.goodput.question import Engine, Floats, Lengths, Slos


@dataclass(frozen=True, kw_only=True)
class PhaseRates:
    """Of one parallelism on one hardware. DoesNotFit when the weights do not."""

    hardware: Hardware
    parallelism: Parallelism
    lengths: Lengths
    slos: Slos
    engine: Engine

    @cached_property
    def num_kv_tokens(self) -> int:
        return self.hardware.num_kv_tokens(self.parallelism)

    @cached_property
    def is_held(self) -> NDArray[np.bool_]:
        """[num_requests]: prompt and output fit into KV memory."""
        return self.lengths.prompts + self.lengths.outputs <= self.num_kv_tokens

    @cached_property
    def prompts(self) -> Floats:
        """Tokens that have to be computed: none of who is refused."""
        return np.where(self.is_held, self.lengths.prompts, 0.0)

    @cached_property
    def steps(self) -> Floats:
        """Decode steps likewise: the first token comes from the prefill."""
        return np.where(self.is_held, self.lengths.outputs - 1.0, 0.0)

    @cached_property
    def saturation_tokens(self) -> int:
        return saturation_tokens(self._model, self.engine.most_saturation_tokens)

    def prefill_s(self, budget: int | None = None) -> Floats:
        """[num_requests]: from the start of a prompt's first step to the end of its last, with nothing beside it."""
        budget = budget or self.saturation_tokens
        if budget not in self._prefill_s:
            self._prefill_s[budget] = self._prompts_alone_s(budget)
        return self._prefill_s[budget]

    @cached_property
    def _prefill_s(self) -> dict[int, Floats]:
        return {}

    def _prompts_alone_s(self, budget: int) -> Floats:
        prompts, times_s = self.prompts, np.zeros(len(self.prompts))
        for start in range(0, int(prompts.max()), budget):
            ends = np.minimum(prompts, start + budget)
            for end in np.unique(ends[ends > start]):
                times_s[(ends == end) & (ends > start)] += self._latency_s(end - start, end**2 - float(start) ** 2)
        return times_s

    @cached_property
    def prefill_request_s(self) -> float:
        """Of a prefill instance's time, that a request costs on the average in full steps."""
        return self.prompt_s(self.saturation_tokens)

    def prompt_s(self, budget: int) -> float:
        empty_s, full_s = self._bottleneck_s(budget, 0.0), self._bottleneck_s(budget, float(budget) ** 2)
        per_token_s = min(self._bottleneck_s(size, 0.0) / size for size in sizes_up_to(budget))
        per_square_s = max(0.0, full_s - empty_s) / budget**2
        prompts = self.prompts
        return float(np.mean(prompts * per_token_s + prompts**2 * per_square_s))

    @cached_property
    def prefill_bound(self) -> float:
        """Requests a second; 0 where too many prompts take longer than the limit when they are alone."""
        fits = self.lengths.prompts <= self.num_kv_tokens
        return self._rate(self.prefill_request_s) if self._is_enough(self._is_in_time(self.prefill_s()) & fits) else 0.0

    @cached_property
    def num_steps(self) -> float:
        """Decode steps of a request, on the average."""
        return float(np.mean(self.steps))

    @cached_property
    def context(self) -> float:
        """Tokens of KV that a sequence has which decodes, on the average over its steps."""
        steps = self.steps
        total = float(steps.sum())
        return float(((self.prompts + (steps + 1) / 2) * steps).sum()) / total if total else 0.0

    @cached_property
    def max_batch(self) -> int:
        """Sequences in one step of decodes: seats, and memory for them (of all that are in stages at a time)."""
        in_memory = self.num_kv_tokens / max(1.0, self.context) / self.parallelism.pp
        return max(0, min(self.engine.max_num_seqs, int(in_memory)))

    @cached_property
    def decode_steps(self) -> tuple[Floats, Floats]:
        """Sizes of batches, and the seconds of a step of each."""
        batches = sizes_up_to(self.max_batch)
        return np.array(batches, float), np.array([self.decode_s(batch) for batch in batches])

    def decode_s(self, batch: float) -> float:
        """A step of so many, first to last stage."""
        return sum(self._stages_s(0.0, 0.0, batch))

    @cached_property
    def decode_bound(self) -> float:
        """Requests a second; inf where outputs have one token only."""
        if not self._is_enough(self.is_held):
            return 0.0
        if not self.num_steps:
            return inf
        batches = sizes_up_to(self.max_batch)
        times_s = [self.decode_s(batch) for batch in batches]
        rates = [batch / max(self._stages_s(0.0, 0.0, batch)) / self.num_steps for batch in batches]
        return self._within_tpot(times_s, rates)

    def mixed_bound(self, budget: int) -> float:
        """Requests a second of an instance that does both, `budget` tokens a step."""
        if not self._is_enough(self._is_in_time(self.prefill_s(budget)) & self.is_held):
            return 0.0
        if not self.num_steps:
            return self._rate(self.prompt_s(budget))
        times_s, rates = [], []
        for batch in sizes_up_to(self.max_batch):
            chunk = min(batch * self.mean_prompt / self.num_steps, max(1.0, budget - batch))
            time_s = self._mixed_step_s(chunk, batch, max(chunk, budget - batch))
            times_s.append(time_s)
            rates.append(chunk / self.mean_prompt / time_s)
        return self._within_tpot(times_s, rates)

    def mixed_s(self, chunk: float, batch: float) -> float:
        """A step of so many prompt tokens beside so many that decode, first to last stage."""
        return sum(self._stages_s(chunk, chunk * self._squares_per_token, batch))

    def _mixed_step_s(self, chunk: float, batch: float, largest: float) -> float:
        """On the average of many steps, as cheap as it can be: chunks in each step, or full ones in some."""
        evenly_s = max(self._stages_s(chunk, chunk * self._squares_per_token, batch))
        full_s = max(self._stages_s(largest, largest * self._squares_per_token, batch))
        none_s = max(self._stages_s(0.0, 0.0, batch))
        share = chunk / largest
        return min(evenly_s, share * full_s + (1.0 - share) * none_s)

    @cached_property
    def mean_prompt(self) -> float:
        return float(self.prompts.mean())

    @cached_property
    def _squares_per_token(self) -> float:
        return float((self.prompts**2).mean()) / self.mean_prompt

    def _within_tpot(self, times_s: list[float], rates: list[float]) -> float:
        """The best rate whose steps are in time; of the share that need not be, the best there is."""
        limit_s = inf if self.slos.tpot_s is None else self.slos.tpot_s
        in_time = [rate for time_s, rate in zip(times_s, rates, strict=True) if time_s <= limit_s]
        if not in_time:
            return 0.0
        attainment = self.slos.attainment
        return attainment * max(in_time) + (1.0 - attainment) * max(rates)

    def _is_in_time(self, times_s: Floats) -> NDArray[np.bool_]:
        return times_s <= (inf if self.slos.ttft_s is None else self.slos.ttft_s)

    def _is_enough(self, is_met: NDArray[np.bool_]) -> bool:
        return bool(np.mean(is_met) >= self.slos.attainment)

    @staticmethod
    def _rate(request_s: float) -> float:
        return 1.0 / request_s if request_s else 0.0

    def _latency_s(self, num_tokens: float, squares: float) -> float:
        return sum(self._stages_s(num_tokens, squares, 0))

    def _bottleneck_s(self, num_tokens: float, squares: float) -> float:
        return max(self._stages_s(num_tokens, squares, 0))

    def _stages_s(self, num_tokens: float, squares: float, batch: float) -> tuple[float, ...]:
        shape = StepShape(
            num_prefill_tokens=int(num_tokens),  # a bound may round down, and never up
            prefill_squares=squares,
            num_decodes=int(batch),
            decode_context=int(batch * self.context),
        )
        return self._model.stages_s(shape)

    @cached_property
    def _model(self) -> LatencyModel:
        return self.hardware.model(self.parallelism)


def sizes_up_to(largest: int) -> list[int]:
    """1 and up, about a tenth more each time."""
    sizes, size = [], 1
    while size < largest:
        sizes.append(size)
        size = max(size + 1, int(size * 1.1))
    return [*sizes, largest] if largest >= 1 else []
