"""The front of `baton bench migration`: a ledger and a stream to each instance, as a router has, and nothing more.

Without the router's own fronts no client's stream blurs what is measured: a token counts when its step update arrives.
"""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cluster.engine.sampling_params import SamplingParams
from cluster.instance.config import InstanceInfo
from cluster.messages import (
    Activated,
    DispatchRefused,
    GrantRefused,
    Held,
    Holder,
    InstanceMessage,
    PassedOn,
    SequenceState,
    StepUpdate,
)
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from cluster.snapshot import InstanceSnapshot
from deploy.bench.migration_instance import Job
from deploy.errors import DeployError
from router.connection import InstanceConnection
from router.ledger import Deliver, Fail, Instruction, Ledger, Note, Place, Requeue, Step, Tell

PATIENCE_S = 120.0
_FRONT = "bench/1"
_SUSPECT_AFTER_S = 4.0


@dataclass(slots=True, eq=False)
class Running:
    """A request that runs: its prompt, its tokens, and when each came."""

    request_id: str
    prompt: tuple[int, ...]
    at: str
    token_ids: list[int] = field(default_factory=list)
    times_s: list[float] = field(default_factory=list)
    passed_s: list[float] = field(default_factory=list)
    error: str = ""
    news: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def num_tokens(self) -> int:
        return len(self.prompt) + len(self.token_ids)

    async def until_tokens(self, count: int) -> None:
        """So many of its output have come. Raises DeployError."""
        await self._until(lambda: len(self.token_ids) >= count)

    async def more(self, count: int) -> None:
        await self.until_tokens(len(self.token_ids) + count)

    async def until_passed(self, count: int) -> None:
        await self._until(lambda: len(self.passed_s) >= count)

    async def _until(self, holds: Any) -> None:
        try:
            while not holds() and not self.error:
                self.news.clear()
                await asyncio.wait_for(self.news.wait(), PATIENCE_S)
        except TimeoutError:
            self.error = f"nothing new within {PATIENCE_S:.0f} s"
        if self.error:
            raise DeployError(f"{self.request_id}: {self.error}")


class InstanceProcess:
    """Spoken to in lines of JSON."""

    def __init__(self, process: asyncio.subprocess.Process, job: Job, hello: dict[str, Any]) -> None:
        fields = hello["info"]
        self.name = job.name
        self.info = InstanceInfo(**{**fields, "role": InstanceRole(fields["role"])})
        self.holder = Holder(self.info.name, self.info.incarnation)
        self.raw_address: str = hello["raw_address"]
        self.record_bytes: int = hello["record_bytes"]
        self._process = process

    @property
    def place(self) -> Place:
        return Place(self.holder, self.info.address, self.info.link_address)

    async def ask(self, *command: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command).encode() + b"\n")
        return await _answer_of(self._process, self.name)


async def _answer_of(process: asyncio.subprocess.Process, name: str) -> Any:
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), PATIENCE_S)
    if not line:
        raise DeployError(f"instance {name} ended; what it said is above")
    return json.loads(line)


@asynccontextmanager
async def started(jobs: Iterable[Job]) -> AsyncIterator[list[InstanceProcess]]:
    """All at once; none is left behind."""
    processes: list[asyncio.subprocess.Process] = []
    try:
        for job in jobs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "deploy.bench.migration_instance"),
                cwd=Path(__file__).parents[2],
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                limit=16 << 20,
            )
            assert process.stdin is not None
            process.stdin.write(job.to_json().encode() + b"\n")
            processes.append(process)
        hellos = await asyncio.gather(
            *(_answer_of(process, job.name) for process, job in zip(processes, jobs, strict=True))
        )
        yield [
            InstanceProcess(process, job, hello) for process, job, hello in zip(processes, jobs, hellos, strict=True)
        ]
    finally:
        for process in processes:
            if process.returncode is None:
                process.kill()
        await asyncio.gather(*(process.wait() for process in processes))


class Fleet:
    """Implements `ConnectionEvents`. What goes wrong with a request is its `error`."""

    def __init__(self, instances: Iterable[InstanceProcess], secret: ClusterSecret) -> None:
        self._ledger = Ledger(1)
        self.instances = {instance.name: instance for instance in instances}
        self._secret = secret
        self._requests: dict[str, Running] = {}
        self._connections: dict[Holder, InstanceConnection] = {}
        self._joined: set[Holder] = set()
        self._snapshots: dict[str, InstanceSnapshot] = {}
        self._news = asyncio.Event()
        self._num_requests = 0

    async def connect(self) -> None:
        for instance in self.instances.values():
            self._connections[instance.holder] = InstanceConnection(
                instance.info, _FRONT, 1, self, secret=self._secret, suspect_after_s=_SUSPECT_AFTER_S
            )
        async with asyncio.timeout(PATIENCE_S):
            while len(self._joined) < len(self.instances):
                self._news.clear()
                await self._news.wait()

    async def close(self) -> None:
        for connection in self._connections.values():
            await connection.close()

    # What is done

    @staticmethod
    def now_s() -> float:
        """On the clock of `Running.times_s`, and of the instances' logs."""
        return time.monotonic()

    def start(self, prompt: tuple[int, ...], at: str, max_tokens: int = 1 << 20) -> Running:
        """Greedy, and without end ids."""
        self._num_requests += 1
        request = Running(f"r{self._num_requests}", prompt, at)
        self._requests[request.request_id] = request
        self._dispatch(request, prompt, max_tokens)
        return request

    def _dispatch(self, request: Running, token_ids: tuple[int, ...], max_tokens: int) -> None:
        state = SequenceState(
            request_id=request.request_id,
            front=_FRONT,
            prompt_token_ids=token_ids,
            sampling_params=SamplingParams(temperature=0.0, max_tokens=max_tokens),
            arrival_time_s=time.monotonic(),
        )
        self._ledger.admit(state)
        place = self.instances[request.at].place
        self._carry_out(self._ledger.dispatch(request.request_id, place, None, self._num_requests))

    def hand_over(self, request: Running, to: str) -> None:
        self._carry_out(self._ledger.hand_over(request.request_id, self.instances[to].place, "bench"))
        request.at = to

    def start_again(self, request: Running, to: str) -> None:
        """Aborted where it is, and dispatched there with all its tokens as the prompt."""
        self._carry_out(self._ledger.finish(request.request_id))
        request.at = to
        self._dispatch(request, (*request.prompt, *request.token_ids), 1 << 20)

    async def stop(self, *requests: Running) -> None:
        """Returns when no instance holds anything."""
        for request in requests:
            self._carry_out(self._ledger.finish(request.request_id))
            del self._requests[request.request_id]
        self._snapshots.clear()
        async with asyncio.timeout(PATIENCE_S):
            while not self._is_idle():
                self._news.clear()
                await self._news.wait()

    def _is_idle(self) -> bool:
        if len(self._ledger) > 0:
            return True  # others run on
        seen = self._snapshots.values()
        return len(seen) == len(self.instances) and all(
            snapshot.num_sequences == snapshot.num_reserved_blocks == snapshot.num_leaked_blocks == 0
            for snapshot in seen
        )

    async def take_logs(self) -> list[Any]:
        """What all instances noted since the last time."""
        logs = await asyncio.gather(*(instance.ask("log") for instance in self.instances.values()))
        return [tuple(line) for log in logs for line in log]

    async def raw_link_s(self, source: str, target: str, num_blocks: int) -> float:
        """One transfer of so many blocks over a link of its own between the same two processes."""
        receiver = self.instances[target]
        await receiver.ask("open", source, num_blocks)
        return float(await self.instances[source].ask("send", receiver.raw_address, target, num_blocks))

    # ConnectionEvents

    def on_joined(self, info: InstanceInfo) -> None:
        pass

    def on_holdings(self, holder: Holder, held: tuple[Held, ...]) -> None:
        self._joined.add(holder)
        self._news.set()

    def on_snapshot(self, snapshot: InstanceSnapshot) -> None:
        self._snapshots[snapshot.instance.instance] = snapshot
        self._news.set()

    def on_lost(self, holder: Holder, reason: str) -> None:
        for request in self._requests.values():
            self._fail(request, f"{holder.instance}: {reason}")

    def on_message(self, holder: Holder, message: InstanceMessage) -> None:
        match message:
            case StepUpdate():
                for update in message.updates:
                    self._carry_out(self._ledger.on_tokens(holder, update))
            case Activated():
                self._carry_out(self._ledger.on_activated(holder, message))
            case GrantRefused():
                self._carry_out(self._ledger.on_grant_refused(message))
            case PassedOn():
                self._carry_out(self._ledger.on_passed_on(holder, message))
            case DispatchRefused():
                self._carry_out(self._ledger.on_dispatch_refused(holder, message))

    # Carrying out

    def _carry_out(self, instructions: list[Instruction]) -> None:
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    self._connections[holder].send(message)
                case Deliver():
                    self._deliver(instruction)
                case Note():
                    self._on_note(instruction)
                case Fail() | Requeue():
                    self._fail(self._requests[instruction.request_id], "lost")

    def _deliver(self, deliver: Deliver) -> None:
        if request := self._requests.get(deliver.request_id):
            request.token_ids += deliver.token_ids
            request.times_s += [time.monotonic()] * len(deliver.token_ids)
            request.news.set()

    def _on_note(self, note: Note) -> None:
        if request := self._requests.get(note.request_id):
            if note.step is Step.PASSED:
                request.passed_s.append(time.monotonic())
                request.news.set()
            elif note.step is Step.KEPT:
                self._fail(request, f"stays where it was: {note.reason}")

    def _fail(self, request: Running, reason: str) -> None:
        request.error = reason
        request.news.set()
