"""`baton migrate`, `drain`, `flip` and `trace`: what operators do with requests and instances that run."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from deploy.cli.talk import Address

if TYPE_CHECKING:
    from cluster.pb import baton_pb2

_Request = Annotated[str, typer.Argument(help="The request's id.")]
_Instance = Annotated[str, typer.Argument(help="An instance, as `baton status` names it.")]


def add_to(app: typer.Typer) -> None:
    for command in (migrate, drain, flip, trace):
        app.command()(command)


def migrate(
    request: _Request,
    to: Annotated[str, typer.Option("--to", help="The instance where it is to go on.")],
    address: Address = None,
) -> None:
    """Move a running request to another instance, while its tokens flow."""
    from cluster.pb import baton_pb2
    from deploy.client import connect, find_address
    from router.timeouts import MIGRATE_CALL_TIMEOUT_S

    wanted = baton_pb2.MigrateRequest(request_id=request, instance=to)
    with connect(find_address(None, address)) as stub:
        moved = stub.Migrate(wanted, timeout=MIGRATE_CALL_TIMEOUT_S)
    print(f"{request} has moved from {moved.source} to {moved.target}")


def drain(
    instance: _Instance,
    undo: Annotated[bool, typer.Option("--undo", help="Let it take requests again.")] = False,
    address: Address = None,
) -> None:
    """Move everything away from an instance and send nothing there. It goes on when this command is left."""
    from cluster.pb import baton_pb2
    from deploy.client import connect, find_address

    with connect(find_address(None, address)) as stub:
        last = _follow(instance, stub.Drain(baton_pb2.DrainRequest(instance=instance, undo=undo)), is_shown=not undo)
    if undo:
        print(f"{instance} takes requests again")
    else:
        print(f"{instance} is drained, {last.num_moved} requests moved; `baton drain {instance} --undo` undoes it")


def flip(
    instance: _Instance,
    role: Annotated[Literal["prefill", "decode", "mixed"], typer.Option(help="What it is to do.")],
    address: Address = None,
) -> None:
    """Drain an instance, give it another role, and let it take requests again. Leaving early undoes the drain."""
    from cluster.pb import baton_pb2
    from deploy.client import connect, find_address

    with connect(find_address(None, address)) as stub:
        _follow(instance, stub.Flip(baton_pb2.FlipRequest(instance=instance, role=role)))
    print(f"{instance} is a {role} instance now")


def _follow(
    instance: str, steps: "Iterable[baton_pb2.DrainProgress]", *, is_shown: bool = True
) -> "baton_pb2.DrainProgress":
    """The last one; DeployError when the deployment ends before the operation does."""
    from deploy.client import until_silent
    from deploy.errors import DeployError

    last: baton_pb2.DrainProgress | None = None
    shown = None
    for last in until_silent(steps):
        if is_shown and not last.done and last != shown:
            shown = last
            print(f"{instance}: {last.num_requests} there, {last.num_moved} moved", flush=True)
    if last is None or not last.done:
        raise DeployError(f"the deployment ended before {instance} was done")
    return last


def trace(request: _Request, address: Address = None) -> None:
    """Show where a request has been: every instance that held it, and why it went on elsewhere."""
    from cluster.pb import baton_pb2
    from deploy.client import connect, find_address
    from router.timeouts import CALL_TIMEOUT_S

    with connect(find_address(None, address)) as stub:
        found = stub.Trace(baton_pb2.TraceRequest(request_id=request), timeout=CALL_TIMEOUT_S)
    print(f"{request} {describe_holders(found)}")
    for event in found.events:
        print(f"{event.at_s:9.3f} s  {event.num_output_tokens:5} tokens  {describe_event(event)}")


def describe_holders(trace: "baton_pb2.RequestTrace") -> str:
    holders: list[str] = []
    for event in trace.events:
        if event.instance and event.instance not in holders[-1:]:
            holders.append(event.instance)
    return f"was held by {' → '.join(holders)}" if holders else "waits to be dispatched"


def describe_event(event: "baton_pb2.TraceEvent") -> str:
    why = f" ({event.reason})" if event.reason else ""
    match event.event:
        case "granted":
            return f"{event.instance} may hand it over to {event.peer}{why}"
        case "passed":
            return f"{event.peer} has passed it to {event.instance}{why}"
        case "kept":
            return f"stays with {event.instance}{why}"
        case "recovering":
            return f"was lost and is computed again{why}"
        case "dispatched":
            return f"dispatched to {event.instance}"
        case "adopted":
            return f"{event.instance} had it when the router came back"
    return f"{event.event}{why}"
