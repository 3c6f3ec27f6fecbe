"""Calls that may never return: each channel's own thread makes them, so that who waits can give up."""

import queue
import threading
from collections.abc import Callable
from typing import Any


class Job:
    """`error` may be there before `done`: then the call goes on only to wait until the device is finished with it."""

    def __init__(self, call: Callable[["Job"], Any]) -> None:
        self._call = call
        self.done = threading.Event()
        self.value: Any = None
        self.error: Exception | None = None

    def run(self) -> None:
        try:
            self.value = self._call(self)
        except Exception as error:
            self.error = self.error or error
        self.done.set()


class Worker:
    """Runs jobs one after the other, until `stop`."""

    def __init__(self, name: str, start: Callable[[], None]) -> None:
        """`start` is the thread's first act; if that fails, every job fails with it."""
        self._start = start
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, call: Callable[[Job], Any]) -> Job:
        job = Job(call)
        self._jobs.put(job)
        return job

    def stop(self) -> None:
        """Lets it end once the job that it is at has returned, and waits for that: for ever if need be."""
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        started = Job(lambda _: self._start())
        started.run()
        while (job := self._jobs.get()) is not None:
            if started.error is None:
                job.run()
            else:
                job.error = started.error
                job.done.set()


class Death:
    """The moment from which a channel's operations no longer touch any memory."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: list[Callable[[], None]] | None = []
        self._happened = threading.Event()

    def wait(self, timeout_s: float) -> bool:
        return self._happened.wait(timeout_s)

    def then(self, callback: Callable[[], None]) -> None:
        """Calls it once: at once when that moment has passed, else from another thread."""
        with self._lock:
            if self._callbacks is not None:
                self._callbacks.append(callback)
                return
        callback()

    def happen(self) -> None:
        with self._lock:
            callbacks, self._callbacks = self._callbacks or [], None
        self._happened.set()
        for callback in callbacks:
            callback()
