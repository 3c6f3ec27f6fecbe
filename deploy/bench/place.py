"""Where a benchmark runs: a deployment that is there, or one brought up for it and taken down again."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cluster.spec.deployment import Deployment
from cluster.spec.load import load_deployment
from deploy.client import DEFAULT_ADDRESS, DEFAULT_HTTP_ADDRESS, fetch_status
from deploy.errors import DeployError
from deploy.records import find_record


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    grpc_address: str
    http_address: str
    is_borrowed: bool

    def address(self, backend: str) -> str:
        return self.http_address if backend == "http" else self.grpc_address


@contextmanager
def place_of(file: Path | None) -> Iterator[Place]:
    """The deployment of `file`, brought up unless it answers; without a file the one that runs here."""
    if file is None:
        yield _running_place()
        return
    deployment = load_deployment(file)
    fronts = deployment.spec.fronts
    grpc_address, http_address = (f"{front.host}:{front.port}" for front in (fronts.grpc, fronts.http))
    if _serves(deployment, grpc_address):
        yield Place(grpc_address=grpc_address, http_address=http_address, is_borrowed=True)
    else:
        with brought_up(deployment) as place:
            yield place


@contextmanager
def brought_up(deployment: Deployment) -> Iterator[Place]:
    from deploy.cli.show import display
    from deploy.preconditions import ray_address
    from deploy.service import running

    with running(deployment, ray_address()) as service:
        with display() as show:
            record = service.up(show)
        yield Place(grpc_address=record.grpc_address, http_address=record.http_address, is_borrowed=False)


def _running_place() -> Place:
    record = find_record(None)
    if record is None:
        return Place(grpc_address=DEFAULT_ADDRESS, http_address=DEFAULT_HTTP_ADDRESS, is_borrowed=True)
    return Place(grpc_address=record.grpc_address, http_address=record.http_address, is_borrowed=True)


def _serves(deployment: Deployment, address: str) -> bool:
    """Whether this very deployment answers there. Another one does: DeployError."""
    try:
        status = fetch_status(address)
    except DeployError:
        return False
    if status.deployment != deployment.metadata.name:
        raise DeployError(f"another deployment, {status.deployment}, answers at {address}")
    return True
