"""Reads the tensors of a checkpoint directory, from one safetensors file or from several with an index."""

from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from cluster.model.config import Fields
from cluster.model.errors import CheckpointError

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
CPU = torch.device("cpu")


class Weights(Protocol):
    """What a model is made of, wherever it comes from."""

    @property
    def dtype(self) -> torch.dtype: ...

    def tensor(self, name: str, *shape: int) -> Tensor: ...

    def part(self, name: str, *shape: int, dim: int, start: int, size: int) -> Tensor: ...

    def check_all_used(self, *, ignore: tuple[str, ...]) -> None: ...


class Checkpoint:
    """Hands out tensors by name, checked for shape, as copies in `dtype` on `device`.

    It remembers which ones nobody asked for.
    """

    def __init__(self, path: str | Path, dtype: torch.dtype, device: torch.device = CPU) -> None:
        self.directory = Path(path)
        self.dtype = dtype
        self.device = device
        self._readers: dict[Path, Any] = {}
        self._files = self._find_files()
        self._unused = set(self._files)

    def tensor(self, name: str, *shape: int) -> Tensor:
        """Raises `CheckpointError` naming file and tensor if it is missing or not of `shape`."""
        return self._read(name, shape, ...)

    def part(self, name: str, *shape: int, dim: int, start: int, size: int) -> Tensor:
        """[start, start + size) of dimension `dim` of a tensor that as a whole is of `shape`; nothing else is read."""
        return self._read(name, shape, (slice(None),) * dim + (slice(start, start + size),))

    def _read(self, name: str, shape: tuple[int, ...], wanted: Any) -> Tensor:
        file = self._files.get(name)
        if file is None:
            raise CheckpointError(self.directory, "missing from the checkpoint", item=name)
        try:
            stored = self._reader(file).get_slice(name)
        except SafetensorError as error:
            raise CheckpointError(file, f"cannot be read ({error})", item=name) from error
        if tuple(stored.get_shape()) != shape:
            raise CheckpointError(
                file, f"has shape {tuple(stored.get_shape())}, config.json asks for {shape}", item=name
            )
        self._unused.discard(name)
        tensor: Tensor = stored[wanted]
        return tensor.to(self.device, self.dtype, copy=True)  # a copy, so that nothing stays mapped to the file

    def check_all_used(self, *, ignore: tuple[str, ...]) -> None:
        """A tensor that no module asked for is a model we do not know; names that end as in `ignore` are harmless."""
        unknown = sorted(name for name in self._unused if not name.endswith(ignore))
        if unknown:
            raise CheckpointError(self._files[unknown[0]], "is not a tensor of this architecture", item=unknown[0])

    def _find_files(self) -> dict[str, Path]:
        """Tensor name -> file."""
        index, single = self.directory / INDEX_FILE, self.directory / SINGLE_FILE
        if index.exists():
            weight_map = Fields.read(index).values.get("weight_map")
            if not isinstance(weight_map, dict):
                raise CheckpointError(index, "an object is needed", item="weight_map")
            return {name: self.directory / file for name, file in weight_map.items()}
        if single.exists():
            return dict.fromkeys(self._reader(single).keys(), single)
        raise CheckpointError(self.directory, f"has neither {SINGLE_FILE} nor {INDEX_FILE}")

    def _reader(self, file: Path) -> Any:
        if file not in self._readers:
            try:
                self._readers[file] = safe_open(file, framework="pt")
            except FileNotFoundError as error:
                raise CheckpointError(file, "missing") from error
            except (SafetensorError, OSError) as error:
                raise CheckpointError(file, f"truncated or not a safetensors file ({error})") from error
        return self._readers[file]
