"""Seconds of what a device does, waited for."""

from collections.abc import Callable
from time import perf_counter

import torch


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def time_s(work: Callable[[], object], device: torch.device, num_times: int = 1) -> float:
    """Of one time, when it is done so many times without a wait in between."""
    wait(device)
    start = perf_counter()
    for _ in range(num_times):
        work()
    wait(device)
    return (perf_counter() - start) / num_times
