"""A deployment from nothing to up to down: what `baton up` keeps, and what benchmarks borrow."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cluster.handshake import draw_secret
from cluster.spec.deployment import Deployment
from deploy.errors import DeployError, MemberFailed
from deploy.events import Event, EventKind
from deploy.preconditions import check_ports
from deploy.ray_session import ControllerClient, RaySession
from deploy.records import Record, find_record, remove_record, start_ticks, write_record
from deploy.target import instance_targets

Show = Callable[[Event], None]
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Service:
    """What happens is given to `show` as it comes. What it started ends with it, unless `leave` was called."""

    def __init__(self, deployment: Deployment, session: RaySession) -> None:
        self.name = deployment.metadata.name
        self._deployment, self._session = deployment, session
        self._controller: ControllerClient | None = None
        self._num_shown = 0

    def up(self, show: Show, *, detached: bool = False) -> Record:
        """DeployError when it cannot come up, with nothing left running."""
        self._session.require(instance_targets(self._deployment, draw_secret()))  # to be counted, not made
        self._controller = self._session.start_controller(self._deployment, detached=detached)
        self._follow(EventKind.READY, show)
        router = self._controller.addresses()
        record = Record(
            name=self.name,
            grpc_address=router.grpc_address,
            http_address=router.http_address,
            ray_address=self._session.address,
            pid=None if detached else os.getpid(),
            started=None if detached else start_ticks(os.getpid()),
        )
        write_record(record)
        return record

    def wait(self, show: Show) -> None:
        """Until it is stopped from elsewhere."""
        with suppress(MemberFailed):
            self._follow(EventKind.STOPPED, show)

    def leave(self) -> None:
        """It goes on without this process."""
        self._controller = None

    def down(self) -> None:
        if self._controller is not None:
            self._controller.stop()
            self._controller = None
            remove_record(self.name)

    def _follow(self, last: EventKind, show: Show) -> None:
        """Shows what happens until `last` does; DeployError when it failed for good."""
        assert self._controller is not None
        while True:
            for event in self._controller.events(self._num_shown):
                self._num_shown += 1
                if event.kind is EventKind.FAILED:
                    raise DeployError(event.text)
                show(event)
                if event.kind is last:
                    return


@contextmanager
def running(deployment: Deployment, address: str | None) -> Iterator[Service]:
    """A service in a Ray session, not yet up; it goes down at the end, and on SIGINT, SIGTERM and SIGHUP."""
    check_not_running(deployment.metadata.name)
    check_ports(deployment)
    with interruptible(), RaySession(address) as session:
        service = Service(deployment, session)
        with interruptible():  # again: Ray has put in handlers of its own
            try:
                yield service
            finally:
                service.down()


def check_not_running(name: str) -> None:
    if record := find_record(name):
        raise DeployError(f"{name} is running already, at {record.grpc_address}; `baton down {name}` stops it")


@contextmanager
def interruptible() -> Iterator[None]:
    """The first signal to end raises KeyboardInterrupt; those that follow do not disturb the clearing up."""

    def interrupt(*_: object) -> None:
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
