"""How many KV blocks a device holds beside the weights and what the largest step takes."""

from dataclasses import dataclass

import torch

from cluster.model.device import DeviceUnavailable

GIB = 1 << 30


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceMemory:
    """Bytes. `others` hold what is neither free nor this process's tensors: the driver, CUDA graphs, other processes.

    `peak_tensors`: the most that this process's tensors took, the weights among them, in the largest step.
    """

    total: int
    others: int
    peak_tensors: int


def num_kv_blocks(memory: DeviceMemory, record_bytes: int, utilization: float) -> int:
    """What fits into `utilization` of the device. Raises DeviceUnavailable, saying by how much, where none does."""
    available = int(memory.total * utilization) - memory.others - memory.peak_tensors
    if available < record_bytes:
        raise DeviceUnavailable(
            f"the GPU has {memory.total / GIB:.2f} GiB, of which {utilization:.0%} may be used; weights and the "
            f"largest step take {memory.peak_tensors / GIB:.2f} GiB and others {memory.others / GIB:.2f} GiB: "
            f"{(record_bytes - available) / GIB:.2f} GiB are missing for a single KV block; raise "
            "engine.gpu_memory_utilization or engine.tensor_parallel_size, or lower engine.max_num_batched_tokens"
        )
    return available // record_bytes


def check_weights_fit(num_bytes: int, free_bytes: int) -> None:
    """Before they are read; raises DeviceUnavailable."""
    if num_bytes > free_bytes:
        raise DeviceUnavailable(
            f"the weights take {num_bytes / GIB:.2f} GiB and the GPU has {free_bytes / GIB:.2f} GiB free: "
            f"{(num_bytes - free_bytes) / GIB:.2f} GiB are missing; "
            "a larger engine.tensor_parallel_size gives each GPU less"
        )


def device_memory(device: torch.device) -> DeviceMemory:
    """As it is now; the peak is since the process began, or since `torch.cuda.reset_peak_memory_stats`."""
    free, total = torch.cuda.mem_get_info(device)
    others = total - free - torch.cuda.memory_reserved(device)
    return DeviceMemory(total=total, others=others, peak_tensors=torch.cuda.max_memory_allocated(device))
