"""What can be known before anything is started: whether Ray answers, and whether the ports are free."""

import errno
import os
import socket
from functools import cache
from typing import TypedDict

from cluster.spec.deployment import Deployment
from cluster.spec.gpu_checks import FindGpus
from deploy.errors import DeployError, InputError
from deploy.gpus_here import gpus_here

_CONNECT_TIMEOUT_S = 3.0


def ray_address() -> str | None:
    """Of the cluster to join, from RAY_ADDRESS (Ray sets it in its jobs); None: start one here."""
    address = os.environ.get("RAY_ADDRESS", "")
    if address in ("", "local"):
        return None
    if "://" in address:
        raise InputError(
            f"RAY_ADDRESS is {address}; baton joins a cluster by the address of its head, such as 10.0.0.1:6379 "
            "(through a dashboard: ray job submit --address ... -- baton up FILE)"
        )
    if address != "auto":
        _check_answers(address)
    return address


def _check_answers(address: str) -> None:
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise InputError(f"RAY_ADDRESS is {address!r}; should be HOST:PORT")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_TIMEOUT_S).close()
    except OSError as error:
        raise DeployError(f"Ray does not answer at {address} (RAY_ADDRESS): {error.strerror or error}") from error


def check_ports(deployment: Deployment) -> None:
    """DeployError when a front could not listen here; the router runs on this node."""
    fronts = deployment.spec.fronts
    for name, front in (("grpc", fronts.grpc), ("http", fronts.http)):
        try:
            [(family, *_, place), *_] = socket.getaddrinfo(front.host, front.port, type=socket.SOCK_STREAM)
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(place)
                probe.listen()
        except OSError as error:
            why = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror or error}"
            raise DeployError(f"{front.host}:{front.port} (spec.fronts.{name}) {why}") from error


class MachineHere(TypedDict):
    """What `load_deployment` is told of it; None: instances run elsewhere."""

    machine_memory_bytes: int | None
    find_gpus: FindGpus | None


def machine_here(ray_address: str | None) -> MachineHere:
    if ray_address is not None:
        return {"machine_memory_bytes": None, "find_gpus": None}
    return {"machine_memory_bytes": machine_memory_bytes(), "find_gpus": cache(gpus_here)}


def machine_memory_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
