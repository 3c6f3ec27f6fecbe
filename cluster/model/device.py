"""The device that a model runs on, by name; nothing of CUDA or Triton is touched for a CPU."""

import logging
import os

import torch

log = logging.getLogger(__name__)


class DeviceUnavailable(ValueError):
    """There is no such device here, or it is too small."""


def find_device(name: str) -> torch.device:
    """`cpu`, `cuda` or `cuda:1`; `auto` is the first GPU if there is one, or else the CPU. Raises DeviceUnavailable."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
        if name == "cpu":
            log.warning("no GPU is seen here: the model runs on the CPU")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceUnavailable(f"device {name!r} is not known: use cpu, cuda, cuda:<number> or auto") from error
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise DeviceUnavailable(f"device {name!r} is not supported: use cpu, cuda, cuda:<number> or auto")
    return _find_gpu(device.index or 0)


def _find_gpu(index: int) -> torch.device:
    if torch.version.cuda is None:
        raise DeviceUnavailable(
            f"there is no GPU for torch {torch.__version__}, which is built without CUDA: install a CUDA build of it, "
            "or give the pool no resources.gpus"
        )
    count = torch.cuda.device_count()
    if index >= count:
        raise DeviceUnavailable(f"there is no GPU {index}: this process sees {count}")
    return torch.device("cuda", index)


def use_device(device: torch.device) -> None:
    """The calling process computes there from now on; before a model is loaded."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")  # as it was before Triton 3.10; 3.9 warns where unsaid


def is_out_of_memory(error: RuntimeError) -> bool:
    """Torch has a type for its own; of the driver, cuBLAS or Triton there are only words."""
    return isinstance(error, torch.OutOfMemoryError) or any(
        said in str(error).lower() for said in ("out of memory", "alloc_failed")
    )


def free_bytes(device: torch.device) -> int:
    return int(torch.cuda.mem_get_info(device)[0])
