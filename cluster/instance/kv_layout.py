"""What two instances must have in common so that a KV block of one means the same to the other."""

import hashlib
from pathlib import Path

# Weights are told apart by their ends: a file of another training differs there as everywhere.
_TAIL_BYTES = 1 << 16


def kv_layout(model_path: str, dtype: str, block_size: int, record_bytes: int) -> str:
    """A fingerprint: the same for the same weights in the same number format, in blocks of the same shape."""
    return f"{checkpoint_fingerprint(Path(model_path))}/{dtype}/{block_size}/{record_bytes}"


def checkpoint_fingerprint(path: Path) -> str:
    """Of the configuration, and of the names, sizes and last bytes of the weights' files; wherever they lie."""
    digest = hashlib.sha256((path / "config.json").read_bytes())
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as weights:
            num_bytes = weights.seek(0, 2)
            weights.seek(max(0, num_bytes - _TAIL_BYTES))
            digest.update(f"{file.name} {num_bytes}".encode() + weights.read())
    return digest.hexdigest()[:16]
