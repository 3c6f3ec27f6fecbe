"""Runs on the model what the scheduler decided."""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.model.attention import Attention, make_attention
from cluster.model.batch import Batch, make_batch
from cluster.model.decoder import Decoder
from cluster.model.errors import OutOfDeviceMemory
from cluster.model.gpu_options import GpuOptions
from cluster.model.kv_cache import KVCache
from cluster.model.sampler import sample

if TYPE_CHECKING:
    from cluster.model.gpu_steps import GpuSteps  # needs Triton


class ModelRunner:
    """A `cluster.engine.engine.Runner`."""

    def __init__(self, model: Decoder, kv_cache: KVCache, gpu: GpuOptions = GpuOptions()) -> None:  # noqa: B008  # frozen
        self.model = model
        self.kv_cache = kv_cache
        self._gpu_steps: GpuSteps | None = None
        if kv_cache.tensor.device.type == "cuda":
            from cluster.model.gpu_steps import make_gpu_steps

            self._gpu_steps = make_gpu_steps(model, kv_cache, gpu)
            self.attention: Attention = self._gpu_steps.attention
        else:
            self.attention = make_attention(kv_cache, model.shard)

    @torch.inference_mode()
    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        """One token for each entry that samples, in order.

        Raises `NonFiniteLogits` naming requests; without them, what was scheduled can be run again for the others.
        Raises `OutOfDeviceMemory` naming all; the next step can be run.
        """
        try:
            return self._run(output)
        except torch.OutOfMemoryError as error:
            if self.model.communicator.world_size > 1:  # the other ranks wait in the middle of the step
                raise
            torch.cuda.empty_cache()
            raise OutOfDeviceMemory(tuple(entry.sequence.request_id for entry in output.scheduled)) from error

    def _run(self, output: SchedulerOutput) -> list[SampledToken]:
        sampled = [entry.sequence for entry in output.scheduled if entry.samples]
        logits = self.compute(make_batch(output.scheduled))
        if logits is None:
            self._wait()
            return []
        return sample(logits, sampled)

    def _wait(self) -> None:
        """Blocks that a step has filled are sent as soon as it is over; drawing waits for that too."""
        if self._gpu_steps is not None:
            torch.cuda.current_stream(self._gpu_steps.device).synchronize()

    def compute(self, batch: Batch) -> Tensor | None:
        """fp32 logits [num_samples, vocab_size]; None where nothing is drawn, or on another rank than 0.

        To be called in inference mode. On a GPU the next call writes over them.
        """
        if self._gpu_steps is not None:
            return self._gpu_steps.compute(batch)
        self.attention.plan(batch.spans)
        hidden = self.model.forward(batch.token_ids, batch.positions, self.attention)
        if not len(batch.last_rows):
            return None
        # Logits only where a token is drawn: a chunk of prefill has one row at most.
        return self.model.logits(hidden.index_select(0, batch.last_rows))
