"""Hosts on one machine: network namespaces on a bridge-less pair, each with loopback and an address of its own."""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Host:
    namespace: str
    address: str

    @property
    def enter(self) -> list[str]:
        """What to put before a command, so that it runs on this host."""
        return ["ip", "netns", "exec", self.namespace]


def why_not() -> str:
    """Why there can be no such hosts here, or nothing."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need iproute2 (`ip` was not found)"
    tried = subprocess.run(["ip", "netns", "add", "baton-try"], capture_output=True, text=True, check=False)
    if tried.returncode:
        return f"network namespaces cannot be made here: {tried.stderr.strip()}"
    _run("ip", "netns", "del", "baton-try")
    return ""


@contextmanager
def two_hosts() -> Iterator[tuple[Host, Host]]:
    """Joined by a cable; what still runs on them is ended with them."""
    hosts = tuple(Host(f"baton-{os.getpid()}-{letter}", f"10.77.0.{n}") for n, letter in enumerate("ab", start=1))
    try:
        for host in hosts:
            _run("ip", "netns", "add", host.namespace)
            _run(*host.enter, "ip", "link", "set", "lo", "up")
        ends = [("name", f"veth{index}", "netns", host.namespace) for index, host in enumerate(hosts)]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])
        for index, host in enumerate(hosts):
            _run(*host.enter, "ip", "address", "add", f"{host.address}/24", "dev", f"veth{index}")
            _run(*host.enter, "ip", "link", "set", f"veth{index}", "up")
        yield hosts[0], hosts[1]
    finally:
        for host in hosts:
            _remove(host)


def _remove(host: Host) -> None:
    listed = subprocess.run(["ip", "netns", "pids", host.namespace], capture_output=True, text=True, check=False)
    for pid in listed.stdout.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), signal.SIGKILL)
    subprocess.run(["ip", "netns", "del", host.namespace], capture_output=True, check=False)


def _run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)
