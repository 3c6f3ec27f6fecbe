import json
import struct
from pathlib import Path
from typing import Any


def make_checkpoint(
    path: Path, *, num_parameters: int = 1000, max_position_embeddings: int = 2048, **changes: Any
) -> None:
    """A directory that looks like a checkpoint; its one tensor is a hole in the file."""
    path.mkdir()
    config = {
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "hidden_size": 64,
        "intermediate_size": 176,
        "num_hidden_layers": 3,
        "max_position_embeddings": max_position_embeddings,
        **changes,
    }
    (path / "config.json").write_text(json.dumps(config))
    header = {"weight": {"dtype": "F32", "shape": [num_parameters], "data_offsets": [0, 4 * num_parameters]}}
    encoded = json.dumps(header).encode()
    with (path / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        file.truncate(file.tell() + 4 * num_parameters)


def make_document(**changes: Any) -> dict[str, Any]:
    """A small valid deployment; `changes` replace whole parts of its spec."""
    pools = [{"name": "prefill", "role": "prefill"}, {"name": "decode", "role": "decode", "replicas": 2}]
    spec = {"model": {"path": "checkpoint"}, "pools": pools, **changes}
    return {"apiVersion": "baton/v1", "kind": "Deployment", "metadata": {"name": "test"}, "spec": spec}
