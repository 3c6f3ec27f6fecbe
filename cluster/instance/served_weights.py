"""The weights of a running model, for an instance of the same one that starts."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from cluster.instance.kv_layout import checkpoint_fingerprint
from cluster.links.weights import WeightsPart
from cluster.model.decoder import Decoder
from cluster.model.held_tensors import held_tensors


def part_of(model_path: str, dtype: str, rank: int = 0, num_ranks: int = 1) -> WeightsPart:
    """Raises OSError."""
    return WeightsPart(model=checkpoint_fingerprint(Path(model_path)), dtype=dtype, rank=rank, num_ranks=num_ranks)


class ServedWeights:
    """Implements `WeightsSource`. From a GPU they come through pinned memory, on a stream beside the engine's."""

    def __init__(self, model: Decoder, part: WeightsPart) -> None:
        self.part = part
        self._tensors = held_tensors(model)
        self.shapes: Mapping[str, tuple[int, ...]] = {name: it.shape for name, it in self._tensors.items()}
        device = model.embedding.device
        self._stream = None if device.type == "cpu" else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def pieces(self, name: str, piece_bytes: int) -> Iterator[memoryview]:
        data = self._read(name)
        staging = None if self._stream is None else torch.empty(piece_bytes, dtype=torch.uint8, pin_memory=True)
        for start in range(0, data.numel(), piece_bytes):
            piece = data[start : start + piece_bytes]
            yield (piece if staging is None else self._to_host(piece, staging)).numpy().data

    @torch.inference_mode()
    def _read(self, name: str) -> Tensor:
        """Its bytes, [num_bytes], where the model is."""
        if self._stream is None:
            return self._tensors[name].read().contiguous().view(-1).view(torch.uint8)
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            return self._tensors[name].read().contiguous().view(-1).view(torch.uint8)

    @torch.inference_mode()
    def _to_host(self, piece: Tensor, staging: Tensor) -> Tensor:
        assert self._stream is not None
        with torch.cuda.device(self._stream.device), torch.cuda.stream(self._stream):
            host = staging[: piece.numel()].copy_(piece, non_blocking=True)
        self._stream.synchronize()
        return host
