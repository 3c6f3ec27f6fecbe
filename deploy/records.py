"""What runs on this machine for this user, so that `down`, `status` and `generate` find it without being told."""

import json
import os
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from deploy.errors import DeployError


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """`pid`: of the process that keeps the deployment up; None when a detached controller in Ray does.

    `started`: when that process began, in the kernel's ticks: a later process may have the same number.
    """

    name: str
    grpc_address: str
    http_address: str
    ray_address: str
    pid: int | None
    started: int | None

    @property
    def is_alive(self) -> bool:
        """As far as this machine can tell."""
        return self.pid is None or start_ticks(self.pid) == self.started


def start_ticks(pid: int) -> int | None:
    """None: there is no such process."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else int(fields[19])


def folder() -> Path:
    """Of this user alone; DeployError where somebody else has made it."""
    path = Path(os.environ.get("XDG_RUNTIME_DIR") or tempfile.gettempdir()) / f"baton-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    if path.stat().st_uid != os.getuid():
        raise DeployError(f"{path} belongs to somebody else; set XDG_RUNTIME_DIR to a folder of yours")
    return path


def write_record(record: Record) -> None:
    path = folder() / f"{record.name}.json"
    unfinished = path.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(record)))
    unfinished.replace(path)


def remove_record(name: str) -> None:
    (folder() / f"{name}.json").unlink(missing_ok=True)


def records() -> list[Record]:
    """Of what is alive; what has ended without saying so is forgotten."""
    return list(_alive())


def _alive() -> Iterator[Record]:
    for path in sorted(folder().glob("*.json")):
        record = Record(**json.loads(path.read_text()))
        if record.is_alive:
            yield record
        else:
            path.unlink(missing_ok=True)


def find_record(name: str | None) -> Record | None:
    """By its name, or the only one there is; DeployError when there are several to choose from."""
    found = [record for record in records() if name in (None, record.name)]
    if len(found) > 1:
        raise DeployError(f"several deployments run: {', '.join(record.name for record in found)}; name one")
    return found[0] if found else None
