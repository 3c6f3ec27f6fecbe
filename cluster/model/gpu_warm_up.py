"""How many KV blocks a GPU has room for: the largest step is run once without them, and what it took is measured."""

import torch

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler_output import ScheduledSequence, SchedulerOutput
from cluster.engine.sequence import Sequence
from cluster.model.decoder import Decoder
from cluster.model.device import DeviceUnavailable
from cluster.model.errors import OutOfDeviceMemory
from cluster.model.gpu_options import GpuOptions
from cluster.model.kv_cache import KVCache
from cluster.model.kv_sizing import device_memory, num_kv_blocks
from cluster.model.runner import ModelRunner


def measure_num_blocks(
    model: Decoder, block_size: int, *, max_num_batched_tokens: int, max_num_seqs: int, utilization: float
) -> int:
    """Raises DeviceUnavailable where not one fits. What recorded graphs take comes out of what `utilization` leaves."""
    device = model.embedding.device
    kv_cache = KVCache(1, *model.kv_shape(block_size), model.dtype, device=device)
    torch.cuda.reset_peak_memory_stats(device)
    runner = ModelRunner(model, kv_cache, GpuOptions(max_num_seqs=max_num_seqs, graphs=False))
    try:
        runner.run(largest_step(block_size, max_num_batched_tokens, max_num_seqs))
    except (OutOfDeviceMemory, torch.OutOfMemoryError) as error:  # the latter of several ranks
        raise DeviceUnavailable(
            f"the GPU holds the weights, but not a step of {max_num_batched_tokens} tokens beside them: lower "
            "engine.max_num_batched_tokens, or raise engine.tensor_parallel_size"
        ) from error
    memory = device_memory(device)
    del runner
    torch.cuda.empty_cache()
    return num_kv_blocks(memory, kv_cache.record_bytes, utilization)


def largest_step(block_size: int, num_tokens: int, max_num_seqs: int) -> SchedulerOutput:
    """As many sequences and tokens as may be; all draw, and all live in block 0, whose content nobody needs."""
    num_seqs = min(max_num_seqs, num_tokens)
    lengths = [num_tokens // num_seqs + (row < num_tokens % num_seqs) for row in range(num_seqs)]
    return SchedulerOutput(
        scheduled=tuple(_whole_prompt(row, length, block_size) for row, length in enumerate(lengths))
    )


def _whole_prompt(row: int, num_tokens: int, block_size: int) -> ScheduledSequence:
    sequence = Sequence(
        request_id=f"warm-up-{row}",
        prompt_token_ids=(0,) * num_tokens,
        sampling_params=SamplingParams(temperature=1.0, top_p=0.95, seed=row),
        arrival_time_s=0.0,
        block_table=[0] * -(-num_tokens // block_size),
    )
    return ScheduledSequence(sequence=sequence, start=0, num_tokens=num_tokens, samples=True)
