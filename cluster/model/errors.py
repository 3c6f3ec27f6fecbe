"""What can be wrong with a checkpoint or with what a model computes."""

from pathlib import Path


class CheckpointError(ValueError):
    """A checkpoint that cannot be loaded; `file` and `item` (a tensor or a field of config.json) say where it hurts."""

    def __init__(self, file: Path, problem: str, *, item: str | None = None) -> None:
        self.file = file
        self.item = item
        super().__init__(f"{file}: {item}: {problem}" if item else f"{file}: {problem}")


class UnsupportedParallelism(ValueError):
    """So many ranks cannot share this model."""


class NonFiniteLogits(ArithmeticError):
    """The model gave NaN or infinity for these requests; no token of this step was handed out, for nobody."""

    def __init__(self, request_ids: tuple[str, ...]) -> None:
        self.request_ids = request_ids
        super().__init__(f"non-finite logits for request {', '.join(request_ids)}")


class OutOfDeviceMemory(MemoryError):
    """A step did not fit into the device's memory: nothing of it counts for these requests, which were all of it."""

    def __init__(self, request_ids: tuple[str, ...]) -> None:
        self.request_ids = request_ids
        super().__init__(f"out of device memory in a step of {len(request_ids)} requests")
