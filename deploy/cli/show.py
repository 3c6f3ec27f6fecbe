"""Shows how a deployment comes up: a line per member that changes in place on a terminal, plain lines elsewhere."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from deploy.events import Event, EventKind

Show = Callable[[Event], None]


@contextmanager
def display() -> Iterator[Show]:
    if sys.stdout.isatty():
        with _in_place() as show:
            yield show
    else:
        yield show_line


def show_line(event: Event) -> None:
    """Flushed, so that a log or a pipe has it at once."""
    if text := describe(event):
        print(": ".join(filter(None, (event.member, text))), flush=True)


def describe(event: Event) -> str:
    match event.kind:
        case EventKind.PROGRESS | EventKind.PLACED:
            return event.text
        case EventKind.READY:
            return ""
        case EventKind.RUNNING:
            return " ".join(filter(None, (event.kind.value, event.text)))
    return ": ".join(filter(None, (event.kind.value, event.text)))


@contextmanager
def _in_place() -> Iterator[Show]:
    """A spinner and the time for each member that starts; at the end the last state stays on the screen."""
    from rich.progress import Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = SpinnerColumn(finished_text="[green]✓"), TextColumn("{task.fields[member]:12}"), TimeElapsedColumn()
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, TextColumn("{task.description}")) as progress:

        def show(event: Event) -> None:
            if not event.member:
                return
            if event.kind is EventKind.STARTING and event.member in tasks:
                progress.remove_task(tasks.pop(event.member))
            if event.member not in tasks:
                tasks[event.member] = progress.add_task("", member=event.member, total=1)
            completed = int(event.kind in (EventKind.RUNNING, EventKind.PLACED))
            progress.update(tasks[event.member], description=describe(event), completed=completed)

        yield show
