"""Runs on the model what the scheduler decided."""

import torch
from torch import Tensor

from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.model.attention import make_attention
from cluster.model.batch import Batch, make_batch
from cluster.model.decoder import Decoder
from cluster.model.kv_cache import KVCache
from cluster.model.sampler import sample


class ModelRunner:
    """A `cluster.engine.engine.Runner`."""

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        self.model = model
        self.kv_cache = kv_cache
        self.attention = make_attention(kv_cache, model.shard)

    @torch.inference_mode()
    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        """One token for each entry that samples, in order.

        Raises `NonFiniteLogits` naming requests; without them, what was scheduled can be run again for the others.
        """
        sampled = [entry.sequence for entry in output.scheduled if entry.samples]
        logits = self.compute(make_batch(output.scheduled))
        return [] if logits is None else sample(logits, sampled)

    def compute(self, batch: Batch) -> Tensor | None:
        """fp32 logits [num_samples, vocab_size]; None where nothing is drawn, or on another rank than 0.

        To be called in inference mode.
        """
        self.attention.plan(batch.spans)
        hidden = self.model.forward(batch.token_ids, batch.positions, self.attention)
        if not len(batch.last_rows):
            return None
        # Logits only where a token is drawn: a chunk of prefill has one row at most.
        return self.model.logits(hidden.index_select(0, batch.last_rows))
