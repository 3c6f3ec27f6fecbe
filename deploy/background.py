"""Going on in the background: the command ends once the deployment is up, a process of its own keeps it up."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def continue_in_background(log_file: Path) -> Callable[[], None]:
    """Returns in a child process, with what it has to call when it is up.

    Until then the parent shows what the child says; then it exits with 0, or like a child that ended before.
    To be called before there are threads.
    """
    output, child_output = os.pipe()
    is_up, child_is_up = os.pipe()
    if pid := os.fork():
        os.close(child_output)
        os.close(child_is_up)
        sys.exit(_accompany(pid, output, is_up))
    os.setsid()
    os.close(output)
    os.close(is_up)
    _redirect(child_output)

    def settle() -> None:
        os.write(child_is_up, b"1")
        os.close(child_is_up)
        sys.stdout.flush()
        _redirect(os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))

    return settle


def _redirect(target: int) -> None:
    """Stdout and stderr go there, stdin comes from nowhere."""
    nothing = os.open(os.devnull, os.O_RDONLY)
    for source, stream in ((nothing, 0), (target, 1), (target, 2)):
        os.dup2(source, stream)
    os.close(nothing)
    os.close(target)


def _accompany(pid: int, output: int, is_up: int) -> int:
    try:
        with os.fdopen(output) as lines:
            for line in lines:
                print(line, end="", flush=True)
        if os.read(is_up, 1):
            return 0
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
