"""What happens in a process of the cluster that is to go wrong: it serves, and does what the test says over a pipe.

The test arms a step; the thread that comes there says so and stands still until it is released. So whatever is done
to this process, to its links or to its peers in between happens at exactly that step.
"""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

from cluster import failpoints
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.instance.instance import Instance
from deploy.roles import ROLE_POLICIES
from router.config import RouterConfig
from router.ledger import Note
from router.observer import RouterObserver
from router.scheduler import Member
from router.service import RouterService

_FILLER = "the memory that is missing"


class Child:
    """Commands are `(method, arguments)`, carried out in the order they come. News go the other way."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self._speaking = threading.Lock()
        self._released = threading.Event()
        self._held: threading.Thread | None = None
        self._before_release: list[Callable[[], None]] = []

    def say(self, *what: Any) -> None:
        with self._speaking, suppress(OSError):  # a test that is over hears nothing
            self._pipe.send(what)

    def obey(self) -> None:
        """Until the test is over, or has died."""
        try:
            while True:
                method, arguments = self._pipe.recv()
                getattr(self, method)(*arguments)
        except (EOFError, OSError):
            return

    # Commands

    def hold(self, step: str) -> None:
        """Whoever comes to that step first stands still there."""
        self._released.clear()

        def stand_still(*_: object) -> None:
            failpoints.disarm(step)
            self._held = threading.current_thread()
            self.say("held", step)
            self._released.wait()
            self._held = None
            while self._before_release:
                self._before_release.pop()()

        failpoints.arm(step, stand_still)
        self.say("armed", step)

    def release(self) -> None:
        self._released.set()

    def damage(self) -> None:
        """The next block that arrives is not what was sent."""

        def overwrite(record: Any, *_: object) -> None:
            failpoints.disarm("links.receive.record")
            record[:] = 0x3D
            self.say("damaged")

        failpoints.arm("links.receive.record", overwrite)
        self.say("armed", "links.receive.record")

    def drop(self, ports: list[int]) -> None:
        """Every connection from here to one of these ports is over, for both ends."""
        for name in os.listdir("/proc/self/fd"):
            _shut_down_if_to(int(name), ports)
        self.say("dropped")


def _shut_down_if_to(fd: int, ports: list[int]) -> None:
    try:
        if not stat.S_ISSOCK(os.fstat(fd).st_mode):
            return
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.family in (socket.AF_INET, socket.AF_INET6) and sock.getpeername()[1] in ports:
                sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed meanwhile, or connected to nobody


class InstanceChild(Child):
    def __init__(self, pipe: Connection, config: InstanceConfig) -> None:
        super().__init__(pipe)
        self._instance = Instance(config, ROLE_POLICIES)

    async def serve(self) -> None:
        self.say("started", await self._instance.start())
        await asyncio.to_thread(self.obey)
        await self._instance.stop()

    def fill(self) -> None:
        """No block is free any more, from the very place where the step loop stands still, if it does."""
        if self._held is not None and self._held.name == "step loop":
            self._before_release.append(self._fill)
        else:
            self._instance._steps.post(self._fill)

    def empty(self) -> None:
        self._instance._steps.post(self._empty)

    def _fill(self) -> None:
        scheduler = self._instance._core._scheduler
        blocks = scheduler.block_manager
        filler = Sequence(request_id=_FILLER, prompt_token_ids=(), sampling_params=SamplingParams(), arrival_time_s=0.0)
        if scheduler.reserve(filler, 1, []) is not None:
            blocks.allocate(filler, (1 + blocks.num_free_blocks) * blocks.block_size)
        self.say("filled")

    def _empty(self) -> None:
        self._instance._core._scheduler.remove(_FILLER, SequenceStatus.FINISHED_ABORTED)


class RouterChild(Child, RouterObserver):
    """Tells of every step of every request, and after each snapshot how the cluster looks."""

    def __init__(self, pipe: Connection, config: RouterConfig) -> None:
        super().__init__(pipe)
        self._config = config

    async def serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._service = RouterService(self._config)
        self._service.router.observe(self)
        self.say("started", await self._service.start())
        await asyncio.to_thread(self.obey)
        await self._service.stop()

    def instances(self, infos: list[InstanceInfo]) -> None:
        asyncio.run_coroutine_threadsafe(self._service.set_instances(infos), self._loop)

    def on_note(self, note: Note) -> None:
        self.say("note", note)

    def on_snapshot(self, member: Member) -> None:
        self.say("status", member.place.holder.instance, self._service.router.status().SerializeToString())

    def on_joined(self, member: Member) -> None:
        self.say("joined", member.place.holder.instance)


def run_instance(pipe: Connection, config: InstanceConfig) -> None:
    asyncio.run(InstanceChild(pipe, config).serve())


def run_router(pipe: Connection, config: RouterConfig) -> None:
    asyncio.run(RouterChild(pipe, config).serve())
