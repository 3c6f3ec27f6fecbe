"""About what a unit does at a rate, in closed form: good for an order among many, and no more.

Prompts wait as at several servers that take one after the other (M/G/n by the waits of M/M/n, Sakasegawa 1977); who
decodes shares the steps of as many as arrive meanwhile, give or take their square root.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import erf, inf, sqrt

import numpy as np

from deploy.planner.goodput.phase_rates import PhaseRates
from deploy.planner.goodput.question import Floats, Slos
from deploy.planner.goodput.unit import PoolPlan, Unit

RatesOf = Callable[[PoolPlan], PhaseRates]
_BISECTIONS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Attainment:
    """The shares of requests that meet one limit, the other, and both.

    `is_cut_short`: of the first to end: then it was clear that they are too few.
    """

    ttft: float
    tpot: float
    both: float
    is_cut_short: bool = False


NOTHING = Attainment(ttft=0.0, tpot=0.0, both=0.0)


class Estimate:
    """`transfer_s`: of the mean prompt's KV to where it is decoded."""

    def __init__(self, unit: Unit, slos: Slos, rates_of: RatesOf, transfer_s: float = 0.0) -> None:
        self._slos, self._transfer_s = slos, transfer_s
        self._pools = [(pool, rates_of(pool)) for pool in unit.pools]
        self._held = min(float(np.mean(rates.is_held)) for _, rates in self._pools)  # the others are refused

    def goodput(self, at_most: float, attainment: float | None = None) -> float:
        """The highest rate, by bisection, that meets the SLOs."""
        wanted = self._slos.attainment if attainment is None else attainment
        low, high = 0.0, at_most
        for _ in range(_BISECTIONS):
            middle = (low + high) / 2
            low, high = (middle, high) if self.at(middle).both >= wanted else (low, middle)
        return low

    def at(self, rate: float) -> Attainment:
        prefill = _shares([each for each in self._pools if each[0].role == "prefill"], rate)
        decode = _shares([each for each in self._pools if each[0].role == "decode"], rate)
        ttft = sum(share * self._ttft(pool, rates, own) for pool, rates, own, share in prefill)
        tpot = sum(share * self._tpot(pool, rates, own) for pool, rates, own, share in decode)
        if prefill or decode:
            ttft, tpot = ttft if prefill else 1.0, tpot if decode else 1.0
            return self._of_all(ttft, tpot, ttft * tpot)
        mixed = [(share, self._mixed(pool, rates, own)) for pool, rates, own, share in _shares(list(self._pools), rate)]
        return self._of_all(
            sum(share * each.ttft for share, each in mixed),
            sum(share * each.tpot for share, each in mixed),
            sum(share * each.both for share, each in mixed),
        )

    def _of_all(self, ttft: float, tpot: float, both: float) -> Attainment:
        """Who is refused has met nothing."""
        return Attainment(ttft=self._held * ttft, tpot=self._held * tpot, both=self._held * both)

    def _ttft(self, pool: PoolPlan, rates: PhaseRates, rate: float) -> float:
        load = rate * rates.prefill_request_s / pool.num_instances
        return _in_time(rates.prefill_s(), load, pool.num_instances * rates.parallelism.pp, self._slos.ttft_s)

    def _tpot(self, pool: PoolPlan, rates: PhaseRates, rate: float) -> float:
        if not rates.num_steps:
            return 1.0
        batches, times_s = rates.decode_steps
        needed = rate / pool.num_instances * rates.num_steps * times_s / rates.parallelism.pp
        enough = np.nonzero(batches >= needed)[0]
        if not len(enough):
            return 0.0
        return self._steps_in_time(rates, batches, times_s, float(needed[enough[0]]))

    def _steps_in_time(self, rates: PhaseRates, batches: Floats, times_s: Floats, batch: float) -> float:
        if self._slos.tpot_s is None:
            return 1.0
        steps = np.maximum(rates.steps, 1)
        sent_s = self._transfer_s * rates.prompts / rates.mean_prompt
        limits_s = np.where(rates.steps > 0, self._slos.tpot_s - sent_s / steps, inf)
        places = np.searchsorted(times_s, limits_s, side="right")  # so many batch sizes are in time
        largest = np.concatenate(([-inf], batches[:-1], [inf]))[places]
        levels, counts = np.unique(largest, return_counts=True)
        spread = sqrt(max(batch, 1.0))
        return float(sum(n * _normal((level - batch) / spread) for level, n in zip(levels, counts, strict=True))) / len(
            limits_s
        )

    def _mixed(self, pool: PoolPlan, rates: PhaseRates, rate: float) -> Attainment:
        budget, own = pool.token_budget or rates.saturation_tokens, rate / pool.num_instances
        step_s = rates.decode_s(1)
        for _ in range(_BISECTIONS):
            batch, chunk = own * rates.num_steps * step_s, own * rates.mean_prompt * step_s
            if batch > rates.max_batch * pool.parallelism.pp or chunk >= budget - batch:
                return NOTHING
            step_s = rates.mixed_s(chunk, batch) / pool.parallelism.pp
        full_s = rates.mixed_s(budget - batch, batch)
        alone_s = np.ceil(rates.prompts / (budget - batch)) * full_s
        ttft = _in_time(alone_s, chunk / (budget - batch), pool.num_instances, self._slos.ttft_s)
        batches = rates.decode_steps[0]
        times_s = np.array([rates.mixed_s(chunk, each) for each in batches])
        tpot = self._steps_in_time(rates, batches, times_s, batch) if rates.num_steps else 1.0
        return Attainment(ttft=ttft, tpot=tpot, both=ttft * tpot)


def _shares(
    pools: Sequence[tuple[PoolPlan, PhaseRates]], rate: float
) -> list[tuple[PoolPlan, PhaseRates, float, float]]:
    """What of the rate each pool gets, and which share that is: in proportion to what it can."""
    if len(pools) == 1:
        return [(*pools[0], rate, 1.0)]
    can = [pool.num_instances * speed(pool, rates) for pool, rates in pools]
    total = sum(can) or 1.0
    return [(pool, rates, rate * own / total, own / total) for (pool, rates), own in zip(pools, can, strict=True)]


def speed(pool: PoolPlan, rates: PhaseRates) -> float:
    """The bound of one instance of the pool, in requests a second."""
    match pool.role:
        case "prefill":
            return rates.prefill_bound
        case "decode":
            return rates.decode_bound
        case "mixed":
            return rates.mixed_bound(pool.token_budget or rates.saturation_tokens)


def _in_time(alone_s: Floats, load: float, num_servers: int, limit_s: float | None) -> float:
    """The share whose waiting and own time are within the limit."""
    if load >= 1.0:
        return 0.0
    if limit_s is None:
        return 1.0
    waits = load ** (sqrt(2.0 * (num_servers + 1)) - 1.0)
    residual_s = float(np.mean(alone_s**2) / np.mean(alone_s)) / 2.0
    left_s = limit_s - alone_s
    tails = np.exp(-np.maximum(left_s, 0.0) * num_servers * (1.0 - load) / residual_s)
    return float(np.mean(np.where(left_s >= 0.0, 1.0 - waits * tails, 0.0)))


def _normal(value: float) -> float:
    return 0.5 * (1.0 + erf(value / sqrt(2.0))) if abs(value) != inf else (1.0 if value > 0 else 0.0)
