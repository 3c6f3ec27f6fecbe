"""Tensors on their way to the host, which does something else meanwhile."""

import torch
from torch import Tensor


class HostCopy:
    """Follows whatever the device's current stream has to do. Without a device it is there at once."""

    def __init__(self, *tensors: Tensor) -> None:
        """All on one device."""
        self._tensors = tuple(tensor.to("cpu", non_blocking=True) for tensor in tensors)  # from a GPU: pinned memory
        self._event: torch.cuda.Event | None = None
        if tensors[0].device.type == "cuda":
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> tuple[Tensor, ...]:
        """Until they have arrived: for nothing that was put on the stream after them."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensors
