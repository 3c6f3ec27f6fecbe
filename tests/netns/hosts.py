"""Hosts on one machine: network namespaces, each with loopback and one address of its own; `network.py` joins them."""

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PREFIX = "baton"
ROOT = Path(__file__).parents[2]
CLONE_NEWNET = 0x40000000
_BUCKET = ("rate", "1mbit", "burst", "2000", "limit", "2000")


@dataclass(frozen=True, slots=True)
class Host:
    name: str
    namespace: str
    address: str

    @property
    def enter(self) -> list[str]:
        """What to put before a command, so that it runs on this host."""
        return ["ip", "netns", "exec", self.namespace]

    def device(self, other: "Host") -> str:
        """This host's end of the cable to that one."""
        return f"to-{other.name}"


def why_not() -> str:
    """Why there can be no such hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    for tool in ("ip", "tc"):
        if shutil.which(tool) is None:
            return f"network namespaces need iproute2 (`{tool}` was not found)"
    name = f"{PREFIX}-{os.getpid()}-try"
    tries = {
        "network namespaces cannot be made here": ["ip", "netns", "add", name],
        "cables (veth) cannot be laid here": ["ip", "-n", name, "link", "add", "type", "veth"],
        "cables cannot be shaped (tbf) here": ["tc", "-n", name, "qdisc", "add", "dev", "lo", "root", "tbf", *_BUCKET],
    }
    try:
        for reason, command in tries.items():
            tried = subprocess.run(command, capture_output=True, text=True, check=False)
            if tried.returncode:
                return f"{reason}: {tried.stderr.strip()}"
    finally:
        _remove(name)
    return ""


@contextmanager
def namespaces(names: Iterable[str]) -> Iterator[list[Host]]:
    """Hosts without a cable; what still runs on them is ended with them."""
    _remove_orphans()
    hosts = [
        Host(name, f"{PREFIX}-{os.getpid()}-{name}", f"10.77.0.{number}") for number, name in enumerate(names, start=1)
    ]
    try:
        for host in hosts:
            run("ip", "netns", "add", host.namespace)
            run("ip", "-n", host.namespace, "link", "set", "lo", "up")
            run("ip", "-n", host.namespace, "address", "add", f"{host.address}/32", "dev", "lo")
            _behave_like_others(host)
        yield hosts
    finally:
        for host in hosts:
            _remove(host.namespace)


def enter_namespace(name: str) -> None:
    """This thread, and those that it starts from now on. Raises OSError."""
    with Path("/var/run/netns", name).open() as file:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.setns(file.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"entering {name}")


def run(*command: str, text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise OSError(f"{' '.join(command)} {text}: {done.stderr.strip()}")


def settle_on(host: Host) -> None:
    """As `enter_namespace`; and what other hosts compute, on this same machine, holds this process up little."""
    enter_namespace(host.namespace)
    be_prompt()


def be_prompt() -> None:
    with contextlib.suppress(PermissionError):  # root in a container may not
        os.setpriority(os.PRIO_PROCESS, 0, -20)


def run_on(host: Host, command: list[str], env: dict[str, str], timeout_s: float = 120.0) -> str:
    """What it prints there."""
    done = subprocess.run(
        [*host.enter, *command], env=env, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _behave_like_others(host: Host) -> None:
    """What most hosts control congestion by, whatever this machine does; where the kernel lacks it, its own way."""
    command = [*host.enter, "sysctl", "-qw", "net.ipv4.tcp_congestion_control=cubic"]
    subprocess.run(command, capture_output=True, check=False)


def _remove(namespace: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)


def _remove_orphans() -> None:
    """Namespaces of a test run that was killed, and had no time for this itself."""
    for path in Path("/var/run/netns").glob(f"{PREFIX}-*-*"):
        pid = path.name.split("-")[1]
        if pid.isdigit() and not Path(f"/proc/{pid}").exists():
            _remove(path.name)
