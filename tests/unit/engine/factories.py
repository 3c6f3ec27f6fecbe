"""Sequences, schedulers, and a model without tensors whose tokens betray any KV that is not the sequence's own."""

from collections.abc import Iterable
from collections.abc import Sequence as List

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.scheduler_output import SampledToken, ScheduledSequence, SchedulerOutput
from cluster.engine.sequence import Sequence
from cluster.engine.stop_conditions import stop_status

BLOCK_SIZE = 4
VOCAB_SIZE = 50


def make_sequence(
    request_id: str = "a",
    prompt: int | Iterable[int] = 6,
    *,
    max_tokens: int = 8,
    stop_token_ids: Iterable[int] = (),
    arrival_time_s: float = 0.0,
    deadline_s: float | None = None,
    priority: int = 0,
) -> Sequence:
    """`prompt` may be a length: then no other request id has the same tokens."""
    if isinstance(prompt, int):
        prompt = [1000 * (1 + sum(map(ord, request_id))) + index for index in range(prompt)]
    return Sequence(
        request_id=request_id,
        prompt_token_ids=tuple(prompt),
        sampling_params=SamplingParams(max_tokens=max_tokens, stop_token_ids=frozenset(stop_token_ids)),
        arrival_time_s=arrival_time_s,
        deadline_s=deadline_s,
        priority=priority,
    )


def make_scheduler(
    num_blocks: int = 32,
    *,
    max_num_seqs: int = 8,
    max_num_batched_tokens: int = 64,
    watermark_blocks: int = 0,
    max_model_len: int = 1000,
    enable_prefix_caching: bool = True,
) -> Scheduler:
    config = SchedulerConfig(
        max_num_seqs=max_num_seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        watermark_blocks=watermark_blocks,
        max_model_len=max_model_len,
    )
    return Scheduler(config, BlockManager(num_blocks, BLOCK_SIZE, enable_prefix_caching=enable_prefix_caching))


def make_engine(scheduler: Scheduler | None = None) -> Engine:
    scheduler = scheduler or make_scheduler()
    return Engine(scheduler, FakeRunner(scheduler.block_manager))


def kv_chain(token_ids: List[int]) -> list[int]:
    """The KV of each position: like a transformer's, it depends on all tokens up to there."""
    chain, parent = [], 0
    for token_id in token_ids:
        parent = hash((parent, token_id))
        chain.append(parent)
    return chain


def next_token(chain: List[int]) -> int:
    return hash(tuple(chain)) % VOCAB_SIZE


def expected_output(sequence: Sequence, max_num_tokens: int = 10**9) -> list[int]:
    """What the sequence yields when it runs alone, without blocks."""
    output: list[int] = []
    while not stop_status(output, sequence.num_prompt_tokens, sequence.sampling_params, max_num_tokens):
        output.append(next_token(kv_chain([*sequence.prompt_token_ids, *output])))
    return output


class FakeRunner:
    """Writes and reads KV through the block tables, as a GPU does: all of a batch is written, then all is read."""

    def __init__(self, block_manager: BlockManager) -> None:
        self._block_size = block_manager.block_size
        self.slots = [0] * block_manager.num_tokens
        self.num_computed_tokens = 0

    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        for entry in output.scheduled:
            self._write(entry)
        return [SampledToken(token_id=self._sample(entry)) for entry in output.scheduled if entry.samples]

    def write(self, sequence: Sequence, chain: List[int], start: int = 0) -> None:
        """Puts KV of positions from `start` where the table says, as a link would."""
        for position in range(start, len(chain)):
            self.slots[self._slot(sequence, position)] = chain[position]

    def read(self, sequence: Sequence, num_tokens: int) -> list[int]:
        return [self.slots[self._slot(sequence, position)] for position in range(num_tokens)]

    def _slot(self, sequence: Sequence, position: int) -> int:
        return sequence.block_table[position // self._block_size] * self._block_size + position % self._block_size

    def _write(self, entry: ScheduledSequence) -> None:
        sequence, end = entry.sequence, entry.start + entry.num_tokens
        assert entry.num_tokens > 0, f"{sequence.request_id} is scheduled with nothing to compute"
        parent = self.slots[self._slot(sequence, entry.start - 1)] if entry.start else 0
        for position, token_id in enumerate(sequence.token_ids(entry.start, end), entry.start):
            parent = self.slots[self._slot(sequence, position)] = hash((parent, token_id))
        self.num_computed_tokens += entry.num_tokens

    def _sample(self, entry: ScheduledSequence) -> int:
        return next_token(self.read(entry.sequence, entry.start + entry.num_tokens))


def run_to_end(engine: Engine) -> None:
    while engine.scheduler.has_work:
        engine.step()
        engine.scheduler.check_integrity()


def assert_all_free(scheduler: Scheduler) -> None:
    scheduler.check_integrity()
    assert not scheduler.sequences
    assert scheduler.block_manager.num_free_blocks == scheduler.block_manager.num_blocks
    assert scheduler.num_leaked_blocks == scheduler.num_reserved_blocks == 0
    assert scheduler.num_waiting == scheduler.num_running == scheduler.num_waiting_tokens == 0
