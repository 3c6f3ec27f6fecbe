"""Runs on the model what the scheduler decided."""

from collections.abc import Sequence as List
from dataclasses import dataclass
from time import perf_counter
from typing import TYPE_CHECKING, NoReturn

import torch
from torch import Tensor

from cluster.engine.scheduler_output import SampledToken, SchedulerOutput
from cluster.model.batch import Batch, layout_order, make_batch
from cluster.model.cpu_steps import make_cpu_steps
from cluster.model.decoder import Decoder
from cluster.model.device import is_out_of_memory
from cluster.model.errors import OutOfDeviceMemory
from cluster.model.gpu_options import GpuOptions
from cluster.model.host_gap import HostGap
from cluster.model.kv_cache import KVCache
from cluster.model.next_step import NextStep
from cluster.model.sampler import Sampling

if TYPE_CHECKING:
    from cluster.model.gpu_steps import GpuSteps  # needs Triton


@dataclass(frozen=True, slots=True, kw_only=True)
class UnderWay:
    """A step that is being computed. `rows`: which of `sampling` are for the entries that sample, in their order."""

    output: SchedulerOutput
    sampling: Sampling | None  # None: nothing is drawn
    rows: List[int]
    is_counted: bool


class ModelRunner:
    """Where it `computes_beside` the host, on a GPU, it is an engine's `Launcher`, and `host_gap` counts."""

    def __init__(self, model: Decoder, kv_cache: KVCache, gpu: GpuOptions = GpuOptions()) -> None:  # noqa: B008  # frozen
        self.model = model
        self.kv_cache = kv_cache
        self.host_gap = HostGap()
        self._gpu_steps: GpuSteps | None = None
        if kv_cache.tensor.device.type == "cuda":
            from cluster.model.gpu_steps import make_gpu_steps

            self._gpu_steps = make_gpu_steps(model, kv_cache, gpu)
        self._steps = self._gpu_steps or make_cpu_steps(model, kv_cache)
        self.computes_beside = self._gpu_steps is not None
        self._under_way: UnderWay | None = None
        self._next: NextStep | None = None
        self._arrived_s = 0.0

    @property
    def gpu_attention(self) -> object:
        """What attends on a GPU, for who asks what it is."""
        return None if self._gpu_steps is None else self._gpu_steps.attention

    def run(self, output: SchedulerOutput) -> list[SampledToken]:
        """One token for each entry that samples, in order.

        Raises `NonFiniteLogits` naming requests; without them, what was scheduled can be run again for the others.
        Raises `OutOfDeviceMemory` naming all; the next step can be run.
        """
        self.launch(output)
        return self.collect()

    @torch.inference_mode()
    def launch(self, output: SchedulerOutput) -> None:
        """Begins what `collect` ends; raises what `run` does. On a GPU it returns while the step is computed."""
        self._under_way = None
        following, self._next = self._next, None
        try:
            self._under_way = self._launch(output, following)
        except RuntimeError as error:
            self._give_up_or_raise(output, error)

    @torch.inference_mode()
    def collect(self) -> list[SampledToken]:
        """What `run` returns and raises, of the step that was launched. The next one is laid out meanwhile."""
        step, self._under_way = self._under_way, None
        assert step is not None, "no step is under way"
        following = self._look_ahead(step) if self.computes_beside else None
        try:
            sampled = self._collect(step)
        except RuntimeError as error:
            self._give_up_or_raise(step.output, error)
        self._next = following
        return sampled

    def _launch(self, output: SchedulerOutput, following: NextStep | None) -> UnderWay:
        scheduled = output.scheduled
        batch = None if following is None else following.take(scheduled)
        is_foreseen = batch is not None
        if following is not None and batch is not None:
            order = following.order
        else:
            # On a GPU rows are drawn from as they lie: `last_rows` is in order, and nothing is gathered.
            order = layout_order(scheduled) if self.computes_beside else list(range(len(scheduled)))
            batch = make_batch([scheduled[i] for i in order])
        logits = self.compute(batch)
        launched_s = perf_counter()
        drawn = [i for i in order if scheduled[i].samples]
        sampling = Sampling(logits, [scheduled[i].sequence for i in drawn]) if logits is not None else None
        is_decode = len(batch.spans) == len(batch.token_ids)
        is_counted = is_decode and following is not None and (is_foreseen or following.shares(scheduled))
        if is_counted:
            self.host_gap.launched(launched_s - self._arrived_s, is_foreseen=is_foreseen)
        rows = sorted(range(len(drawn)), key=drawn.__getitem__)
        return UnderWay(output=output, sampling=sampling, rows=rows, is_counted=is_counted)

    def _look_ahead(self, step: UnderWay) -> NextStep | None:
        scheduled = step.output.scheduled
        if len(step.rows) < len(scheduled):
            return None
        following = NextStep(scheduled)
        self.lay_out(following.batch)
        return following

    def _collect(self, step: UnderWay) -> list[SampledToken]:
        if step.sampling is None:
            self._wait()
            return []
        step.sampling.wait()
        now_s, before_s = perf_counter(), self._arrived_s
        self._arrived_s = now_s
        if step.is_counted:
            self.host_gap.step_s += now_s - before_s
        sampled = step.sampling.collect()
        return [sampled[row] for row in step.rows]

    def _give_up_or_raise(self, output: SchedulerOutput, error: RuntimeError) -> NoReturn:
        """With several ranks the others wait in the middle of the step."""
        if self.model.communicator.world_size > 1 or not is_out_of_memory(error):
            raise error
        self._wait()  # what was launched of it still writes to its blocks; raises where the device is beyond use
        torch.cuda.empty_cache()
        raise OutOfDeviceMemory(tuple(entry.sequence.request_id for entry in output.scheduled)) from error

    def _wait(self) -> None:
        """Blocks that a step has filled are sent as soon as it is over; drawing waits for that too."""
        if self._gpu_steps is not None:
            torch.cuda.current_stream(self._gpu_steps.device).synchronize()

    def lay_out(self, batch: Batch) -> None:
        """What can be done now for a batch that is likely to be computed next. Its tokens are not there yet."""
        if self._gpu_steps is not None:
            self._gpu_steps.lay_out(batch)

    def compute(self, batch: Batch) -> Tensor | None:
        """fp32 logits [num_samples, vocab_size]; None where nothing is drawn, or on another rank than 0.

        To be called in inference mode. The next call may write over them; on a GPU this one returns before they are
        there.
        """
        return self._steps.compute(batch)
