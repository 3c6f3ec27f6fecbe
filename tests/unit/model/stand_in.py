"""A device that is not there: recorded steps computed from nothing but the memory that they would read on a GPU."""

import torch

from cluster.engine.engine import Engine
from cluster.engine.sequence import Sequence
from cluster.model.attention import Span, make_attention
from cluster.model.batch import Batch
from cluster.model.decode_graphs import DecodeGraphs
from cluster.model.decode_inputs import DecodeInputs
from cluster.model.runner import ModelRunner
from tests.unit.model.factories import make_runner

MAX_SEQS = 32


class StandInRunner(ModelRunner):
    """Runs as on a GPU: single tokens by `DecodeGraphs`, steps in two halves, the next one laid out between them."""

    @classmethod
    def make(cls, name: str = "llama", *, num_blocks: int = 64) -> "StandInRunner":
        plain = make_runner(name, num_blocks=num_blocks)
        return cls(plain.model, plain.kv_cache)

    @torch.inference_mode()
    def __init__(self, *args) -> None:
        super().__init__(*args)
        self.computes_beside = True
        self.num_recorded = 0
        self.attention = make_attention(self.kv_cache, self.model.shard)
        block_size = self.kv_cache.block_size
        inputs = DecodeInputs(MAX_SEQS, self.kv_cache.num_blocks, block_size, torch.device("cpu"))
        self.graphs = DecodeGraphs(inputs, self._decode, MAX_SEQS)

    def compute(self, batch: Batch) -> torch.Tensor | None:
        if not self.graphs.takes(batch):
            return super().compute(batch)
        self.num_recorded += 1
        assert batch.last_rows.tolist() == list(range(len(batch.spans))), "rows would have to be gathered"
        logits = self.graphs.run(batch)
        return logits[: len(batch.spans)]

    def lay_out(self, batch: Batch) -> None:
        if self.graphs.takes(batch):
            self.graphs.lay_out(batch)

    def _decode(self, inputs: DecodeInputs, size: int) -> torch.Tensor:
        step = inputs.step(size)
        contexts = [context for context in step.contexts.tolist() if context]
        logits = torch.zeros(size, self.model.config.vocab_size)
        if contexts:
            tables = step.tables[: len(contexts)].tolist()
            spans = [
                Span(block_table=table, start=end - 1, num_tokens=1)
                for table, end in zip(tables, contexts, strict=True)
            ]
            self.attention.plan(spans)
            ids, positions = (each[: len(spans)].long() for each in (inputs.token_ids(size), inputs.positions(size)))
            logits[: len(spans)] = self.model.logits(self.model.forward(ids, positions, self.attention))
        return logits


def run_all(engine: Engine, *waves: list[Sequence]) -> list[list[int]]:
    """The first at once, each of the others three steps later; what all of them say."""
    sequences = [sequence for wave in waves for sequence in wave]
    left = list(waves)
    num_steps = 0
    while left or engine.scheduler.has_work:
        if left and num_steps % 3 == 0:
            for sequence in left.pop(0):
                engine.scheduler.add(sequence)
        engine.step()
        engine.scheduler.check_integrity()
        num_steps += 1
    return [sequence.output_token_ids for sequence in sequences]
