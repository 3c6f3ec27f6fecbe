"""`baton up` and `baton down`."""

import os
import select
import signal
from pathlib import Path
from typing import Annotated

import typer

from deploy.errors import DeployError

_DOWN_TIMEOUT_S = 20.0


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)


def up(
    file: Annotated[Path, typer.Argument(help="The deployment, such as deploy/local.yaml.")],
    detach: Annotated[bool, typer.Option("--detach", help="Return once it is up; `baton down` ends it.")] = False,
) -> None:
    """Bring a deployment up, on the Ray cluster at RAY_ADDRESS or on one of its own, and keep it up until stopped."""
    from cluster.spec.load import load_deployment
    from deploy.background import continue_in_background
    from deploy.preconditions import machine_here, ray_address
    from deploy.records import folder

    address = ray_address()
    deployment = load_deployment(file, **machine_here(address))
    name = deployment.metadata.name
    # A Ray of its own ends with the process that started it: that one goes on in the background.
    settle = continue_in_background(folder() / f"{name}.log") if detach and address is None else None

    from deploy.cli.show import display, show_line
    from deploy.service import running

    is_up = False
    try:
        with running(deployment, address) as service:
            with display() as show:
                record = service.up(show, detached=detach and address is not None)
            is_up = True
            print(f"{name} is up: gRPC {record.grpc_address}, HTTP http://{record.http_address}", flush=True)
            if detach and address is not None:
                service.leave()
                return
            if settle:
                settle()
            service.wait(show_line)
    except KeyboardInterrupt:
        if not is_up:
            raise
    print(f"{name} is down", flush=True)


def down(name: Annotated[str | None, typer.Argument(help="Default: the only one that runs here.")] = None) -> None:
    """Take a deployment down."""
    from deploy.preconditions import ray_address
    from deploy.records import find_record, remove_record

    if record := find_record(name):
        if record.pid:
            _end_process(record.pid)
        else:
            _end_detached(record.name, record.ray_address)
        remove_record(record.name)
    elif not (name and (address := ray_address()) and _end_detached(name, address)):
        raise DeployError(f"no deployment{f' named {name}' if name else ''} runs here")
    print(f"{record.name if record else name} is down")


def _end_process(pid: int) -> None:
    """It takes its deployment down, as on Ctrl-C."""
    process = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(process, signal.SIGTERM)
        if not select.select([process], [], [], _DOWN_TIMEOUT_S)[0]:
            signal.pidfd_send_signal(process, signal.SIGKILL)
    finally:
        os.close(process)


def _end_detached(name: str, address: str) -> bool:
    """False: Ray there knows of no such deployment."""
    from deploy.ray_session import RaySession

    with RaySession(address) as session:
        controller = session.find_controller(name)
        if controller is not None:
            controller.stop()
        return controller is not None
