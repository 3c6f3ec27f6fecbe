"""The `baton` command in a process of its own, away from whatever else this user runs."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from cluster.model.random_checkpoint import make_random_checkpoint

BATON = Path(sys.executable).with_name("baton")


def write_deployment(folder: Path, *, name: str = "test", **pool: Any) -> Path:
    """One prefill and one decode instance of a small random model, on ports that are drawn."""
    folder.mkdir(exist_ok=True)
    if not (folder / "checkpoint").exists():
        make_random_checkpoint(folder / "checkpoint")
    options = {"resources": {"cpus": 0.1}, "engine": {"kv_cache_memory_bytes": "8MiB", "num_threads": 1}, **pool}
    document = {
        "apiVersion": "baton/v1",
        "kind": "Deployment",
        "metadata": {"name": name},
        "spec": {
            "model": {"path": "checkpoint"},
            "pools": [{"name": role, "role": role, **options} for role in ("prefill", "decode")],
            "fronts": {"grpc": {"port": 0}, "http": {"port": 0}},
        },
    }
    (folder / f"{name}.yaml").write_text(yaml.safe_dump(document))
    return folder / f"{name}.yaml"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """HOME is where Ray keeps its token, XDG_RUNTIME_DIR where baton keeps what runs."""
    own = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    path = f"{BATON.parent}{os.pathsep}{own.get('PATH', '')}"
    return {**own, "PATH": path, "HOME": str(folder), "XDG_RUNTIME_DIR": str(folder), **more}


def run_baton(*arguments: object, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(BATON), *map(str, arguments)]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)


def status(env: dict[str, str], *arguments: str) -> dict[str, Any]:
    done = run_baton("status", "--json", *arguments, env=env)
    assert done.returncode == 0, done.stderr
    cluster: dict[str, Any] = json.loads(done.stdout)
    return cluster


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


class BatonUp:
    """`baton up FILE` in the foreground: enters once it is up, leaves with it down."""

    def __init__(self, file: Path, env: dict[str, str]) -> None:
        self._command = [str(BATON), "up", str(file)]
        self._env = env

    def __enter__(self) -> "BatonUp":
        self.process = subprocess.Popen(
            self._command, env=self._env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.lines = iter_lines(self.process)
        self.ready_line = self.until(" is up: ")
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.communicate(timeout=30)

    def until(self, text: str) -> str:
        """Reads on to the line with this text."""
        return next_line(self.lines, text)


def iter_lines(process: "subprocess.Popen[str]") -> Iterator[str]:
    """Not `yield from`: that would close the pipe with the iterator, and the process would die of it."""
    assert process.stdout is not None
    for line in process.stdout:  # noqa: UP028
        yield line


def next_line(lines: Iterator[str], text: str) -> str:
    read = []
    for line in lines:
        read.append(line)
        if text in line:
            return line
    raise AssertionError(f"ended without {text!r}:\n{''.join(read)}")
