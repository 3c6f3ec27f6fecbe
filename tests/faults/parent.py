"""The test's end of one process of the cluster: started, told what to do, listened to, killed."""

import asyncio
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from tests.forked import fork_server

_START_TIMEOUT_S = 60.0


class Parent:
    """`news(kind, *details)` is called in the event loop with all that the child says, but for its start."""

    def __init__(self, run: Callable[[Connection, Any], None], config: Any, news: Callable[..., None]) -> None:
        context = fork_server()
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=run, args=(theirs, config), daemon=True)
        self._process.start()
        theirs.close()
        self._news = news
        self._loop = asyncio.get_running_loop()
        self._started: asyncio.Future[Any] = self._loop.create_future()
        self.is_alive = True
        self._loop.add_reader(self._pipe.fileno(), self._listen)

    async def started(self) -> Any:
        """The child's first word."""
        return await asyncio.wait_for(self._started, _START_TIMEOUT_S)

    def _listen(self) -> None:
        try:
            kind, *details = self._pipe.recv()
        except (EOFError, OSError):
            self._loop.remove_reader(self._pipe.fileno())
            if not self._started.done():
                self._started.set_exception(ChildProcessError("the process has ended before it served"))
            return
        if kind == "started":
            self._started.set_result(details[0])
        else:
            self._news(kind, *details)

    def tell(self, method: str, *arguments: Any) -> None:
        if self.is_alive:
            self._pipe.send((method, arguments))

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def kill(self) -> None:
        self.is_alive = False
        self._process.kill()

    def close(self) -> None:
        """It ends when nobody can tell it anything any more."""
        if self.is_alive:
            self.signal(signal.SIGCONT)
        self._loop.remove_reader(self._pipe.fileno())
        self._pipe.close()
        self._process.join(10)
        if self._process.exitcode is None:
            self._process.kill()
            self._process.join()
