"""The figures that come with this package; read once, like code."""

import json
from importlib.resources import files
from typing import Any


def read_json(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(read_bytes(name))
    return found


def read_bytes(name: str) -> bytes:
    return (files("cluster.latency") / "data" / name).read_bytes()
