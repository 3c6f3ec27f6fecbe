"""Going on in the background: the command ends once the deployment is up, a process of its own keeps it up."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path


def continue_in_background(log_file: Path) -> Callable[[], None]:
    """Returns in a child process, with what it has to call when it is up; from then on it writes to `log_file`.

    The parent waits for that and exits with 0, or like a child that ended before. Call it before there are threads.
    """
    is_up, child_is_up = os.pipe()
    if pid := os.fork():
        os.close(child_is_up)
        sys.exit(_wait(pid, is_up))
    os.setsid()
    os.close(is_up)

    def settle() -> None:
        sys.stdout.flush()
        log = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        nothing = os.open(os.devnull, os.O_RDONLY)
        for target, stream in ((nothing, 0), (log, 1), (log, 2)):
            os.dup2(target, stream)
        os.write(child_is_up, b"1")
        os.close(child_is_up)

    return settle


def _wait(pid: int, is_up: int) -> int:
    try:
        if os.read(is_up, 1):
            return 0
    except KeyboardInterrupt:
        os.kill(pid, signal.SIGTERM)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
