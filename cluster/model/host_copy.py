"""A tensor on its way to the host, which does something else meanwhile."""

import torch
from torch import Tensor


class HostCopy:
    """Follows whatever the device's current stream has to do. Without a device it is there at once."""

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor.to("cpu", non_blocking=True)  # from a GPU: into pinned memory
        self._event: torch.cuda.Event | None = None
        if tensor.device.type == "cuda":
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()

    def wait(self) -> Tensor:
        """Until it has arrived: for nothing that was put on the stream after it."""
        if self._event is not None:
            self._event.synchronize()
        return self._tensor
