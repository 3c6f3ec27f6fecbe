"""The batch length beyond which prefill throughput no longer grows: L_m of DistServe (arXiv:2401.09670, 3.1)."""

from time import perf_counter

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.engine.sequence import Sequence
from cluster.model.runner import ModelRunner

NUM_REPEATS = 3


def measure_saturation(runner: ModelRunner, *, fraction: float = 0.9, max_tokens: int = 512) -> int:
    """The least batch length, in tokens, with at least `fraction` of the best prefill throughput seen; powers of two.

    Uses blocks 0 and up of the cache, so nothing may live there yet.
    """
    limit = min(max_tokens, runner.model.config.max_model_len, runner.kv_cache.num_tokens)
    lengths = [1 << power for power in range(4, limit.bit_length()) if 1 << power <= limit] or [limit]
    throughput = {length: length / _prefill_s(runner, length) for length in lengths}
    best = max(throughput.values())
    return next(length for length in lengths if throughput[length] >= fraction * best)


def _prefill_s(runner: ModelRunner, num_tokens: int) -> float:
    """The best of a few: what disturbs a measurement only ever makes it longer."""
    output = SchedulerOutput(scheduled=(_prefill(runner, num_tokens),))
    times = []
    for _ in range(NUM_REPEATS):
        start = perf_counter()
        runner.run(output)
        times.append(perf_counter() - start)
    return min(times)


def _prefill(runner: ModelRunner, num_tokens: int) -> ScheduledSequence:
    num_blocks = -(-num_tokens // runner.kv_cache.block_size)
    sequence = Sequence(
        request_id="saturation",
        prompt_token_ids=(0,) * num_tokens,
        sampling_params=SamplingParams(temperature=0.0),
        arrival_time_s=0.0,
        block_table=list(range(num_blocks)),
    )
    return ScheduledSequence(sequence=sequence, start=0, num_tokens=num_tokens, samples=True)
