"""Steps of the real engine, put together at will and timed: scheduler, model and sampler, as an instance runs them."""

from collections.abc import Sequence as List
from dataclasses import dataclass
from time import perf_counter

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.sequence import Sequence
from cluster.latency.step_shape import StepShape
from cluster.model.runner import ModelRunner


@dataclass(frozen=True, slots=True)
class Step:
    """(start, number of tokens) of each sequence: what lies before `start` has KV. One token is a decode."""

    spans: tuple[tuple[int, int], ...]

    @property
    def num_tokens(self) -> int:
        return sum(num_tokens for _, num_tokens in self.spans)

    @property
    def shape(self) -> StepShape:
        chunks = [(start, start + num_tokens) for start, num_tokens in self.spans if num_tokens > 1]
        decodes = [start + 1 for start, num_tokens in self.spans if num_tokens == 1]
        return StepShape(
            num_prefill_tokens=sum(end - start for start, end in chunks),
            prefill_squares=float(sum(end**2 - start**2 for start, end in chunks)),
            num_decodes=len(decodes),
            decode_context=sum(decodes),
        )

    def num_blocks(self, block_size: int) -> int:
        """With room for the token that each yields."""
        return sum(-(-(start + num_tokens + 1) // block_size) for start, num_tokens in self.spans)


class StepTimer:
    """KV is reserved, as for a sequence that comes by a handover, and not computed: what is in it costs the same."""

    def __init__(self, runner: ModelRunner) -> None:
        cache = runner.kv_cache
        self._runner = runner
        self._num_made = 0
        self._vocab_size = runner.model.config.vocab_size
        self._engine = Engine(
            Scheduler(
                SchedulerConfig(
                    max_num_seqs=cache.num_blocks,
                    max_num_batched_tokens=cache.num_tokens,
                    watermark_blocks=0,
                    max_model_len=runner.model.config.max_model_len,
                ),
                BlockManager(cache.num_blocks, cache.block_size, enable_prefix_caching=False),
            ),
            runner,
        )

    def seconds(self, step: Step) -> float:
        """From schedule() to the end of update(). Raises ValueError for what does not fit."""
        for start, num_tokens in step.spans:
            self._enter(start, num_tokens)
        began_s = perf_counter()
        self._engine.step()
        seconds = perf_counter() - began_s
        scheduler = self._engine.scheduler
        for request_id in list(scheduler.sequences):
            scheduler.remove(request_id, scheduler.sequences[request_id].status)
        return seconds

    def check_empty(self) -> None:
        """Asserts that nothing is left of the steps so far."""
        scheduler = self._engine.scheduler
        scheduler.check_integrity()
        assert not scheduler.sequences, "sequences are left of a step that was timed"
        assert scheduler.block_manager.num_free_blocks == self._runner.kv_cache.num_blocks, "blocks are left"

    def _enter(self, start: int, num_tokens: int) -> None:
        scheduler = self._engine.scheduler
        self._num_made += 1
        sequence = Sequence(
            request_id=str(self._num_made),
            prompt_token_ids=tuple((7 * position) % self._vocab_size for position in range(start + num_tokens)),
            sampling_params=SamplingParams(temperature=0.0, max_tokens=2),
            arrival_time_s=float(self._num_made),
            num_computed_tokens=start,
        )
        hashes: List[bytes] = ()
        if not start:
            scheduler.add(sequence)
        elif scheduler.reserve(sequence, start, hashes) is None:
            raise ValueError(f"no room for a sequence of {start + num_tokens} tokens")
        else:
            sequence.num_computed_tokens = start
            scheduler.activate(sequence.request_id)
