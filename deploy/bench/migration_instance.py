"""One instance of `baton bench migration`, in a process with a core of its own, that keeps a log of its handovers.

`python -m deploy.bench.migration_instance`; its first line of stdin is a `Job` in JSON, and it answers with its
`InstanceInfo`. Each further line is [command, argument...], answered by a line of JSON; it stops when stdin ends.
"""

import asyncio
import json
import os
import queue
import random
import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

from cluster.drops import Drops
from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig
from cluster.instance.effects import Effect, StartTransfer, ToFront, ToReceiver, ToSource
from cluster.instance.instance import Instance
from cluster.instance.link_events import LinkEvents
from cluster.instance.loading import LoadedEngine
from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.shared_region import SharedRegion
from cluster.links.slot_table import SlotTable
from cluster.messages import Activated, BlockTransfer, Epoch, Holder, Pass, Reserve, Reserved
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from deploy.roles import ROLE_POLICIES

_RAW_EPOCH = Epoch(1, 1)
_EVENTS = {Reserve: "reserve", Reserved: "reserved", Pass: "pass", Activated: "activated"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """`core` None: wherever the system puts it. `raw_blocks`: how many the raw link moves at most."""

    name: str
    secret: str
    model_path: str
    core: int | None
    raw_blocks: int
    engine: dict[str, Any]
    links: dict[str, Any]
    handover: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    def config(self) -> InstanceConfig:
        return InstanceConfig(
            name=self.name,
            role=InstanceRole.MIXED,
            model_path=self.model_path,
            secret=ClusterSecret(bytes.fromhex(self.secret)),
            engine=EngineConfig(**self.engine),
            links=LinkConfig(**self.links),
            handover=HandoverConfig(**self.handover),
        )


class Log:
    """[what, request, epoch, when, number of blocks]; times are of the clock that all processes of a machine share."""

    def __init__(self) -> None:
        self._lines: list[tuple[str, str, int, float, int]] = []

    def add(self, what: str, request_id: str, epoch: Epoch, num_blocks: int = 0) -> None:
        self._lines.append((what, request_id, epoch.n, time.monotonic(), num_blocks))

    def take(self) -> list[tuple[str, str, int, float, int]]:
        lines, self._lines = self._lines, []
        return lines


class LoggedLinkEvents(LinkEvents):
    def __init__(self, drops: Drops, log: Log) -> None:
        super().__init__(drops)
        self._log = log

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._log.add("sent", transfer.request_id, transfer.epoch, len(transfer.block_ids))
        super().on_sent(transfer)


class LoggedInstance(Instance):
    """An instance as it is; what it says and sends of handovers is noted on its way out."""

    def _assemble(self, loaded: LoadedEngine) -> None:
        super()._assemble(loaded)
        self.region = loaded.region
        self.log = Log()
        events = LoggedLinkEvents(Drops(), self.log)
        events.connect(self._core, self._steps)
        self._links = OutgoingLinks(self.holder, loaded.region, self.config.links, events, secret=self.config.secret)

    def _deliver(self, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case StartTransfer(_, transfer):
                    self.log.add("offer", transfer.request_id, transfer.epoch, len(transfer.block_ids))
                case ToReceiver(_, message) | ToSource(_, message) | ToFront(_, message):
                    if isinstance(message, Reserve | Reserved | Pass | Activated):
                        self.log.add(_EVENTS[type(message)], message.request_id, message.epoch)
        super()._deliver(effects)


class RawLink:
    """What `baton bench links` measures, between the same two processes: blocks in random order, with checksums."""

    def __init__(self, config: InstanceConfig, record_bytes: int, num_blocks: int) -> None:
        memory = SharedRegion.create(num_blocks * record_bytes)
        memory.buffer[:] = os.urandom(memory.num_bytes)
        self._region = KvRegion(memory.buffer, record_bytes, memory.path)
        self._slots = SlotTable(lambda reservation: None)
        self._holder = _raw(config.name)
        self._outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._links = OutgoingLinks(self._holder, self._region, config.links, self, secret=config.secret)
        self._listener = LinkListener(
            self._holder, self._region, self._slots, config.links, self, secret=config.secret, host=config.host
        )
        self.address = self._listener.address

    def open(self, source: str, num_blocks: int) -> None:
        self._slots.close(1)
        self._slots.open(1, _raw(source), _RAW_EPOCH, random.sample(range(len(self._region.records)), num_blocks), 0)

    def send(self, address: str, name: str, num_blocks: int) -> float:
        """Seconds; raises RuntimeError."""
        block_ids = tuple(random.sample(range(len(self._region.records)), num_blocks))
        transfer = BlockTransfer(
            request_id="raw",
            epoch=_RAW_EPOCH,
            reservation=1,
            first_block=0,
            block_ids=block_ids,
            checksums=self._region.checksums(block_ids),
        )
        start_s = time.perf_counter()
        self._links.send(address, _raw(name), transfer)
        if reason := self._outcomes.get():
            raise RuntimeError(f"raw link: {reason}")
        return time.perf_counter() - start_s

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._outcomes.put("")

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._outcomes.put(reason)

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        """The source times it."""

    def on_bad(self, reservation: int, reason: str) -> None:
        """The source hears of it."""

    def on_damaged(self) -> None:
        raise RuntimeError("a damaged block")

    def on_unauthenticated(self) -> None:
        raise RuntimeError("a stranger")

    def on_malformed(self) -> None:
        raise RuntimeError("nonsense")


def _raw(name: str) -> Holder:
    """The end of a raw link at that instance."""
    return Holder(f"raw {name}", 1)


async def serve(job: Job) -> None:
    if job.core is not None:
        os.sched_setaffinity(0, {job.core})
    instance = LoggedInstance(job.config(), ROLE_POLICIES)
    info = await instance.start()
    raw = RawLink(instance.config, instance.region.record_bytes, job.raw_blocks)
    described = {**asdict(info), "role": info.role.value}
    _answer({"info": described, "raw_address": raw.address, "record_bytes": instance.region.record_bytes})
    while line := await asyncio.to_thread(sys.stdin.readline):
        match json.loads(line):
            case ["log"]:
                _answer(instance.log.take())
            case ["open", source, num_blocks]:
                raw.open(source, num_blocks)
                _answer(None)
            case ["send", address, name, num_blocks]:
                _answer(await asyncio.to_thread(raw.send, address, name, num_blocks))
    await instance.stop()


def _answer(value: Any) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(Job(**json.loads(sys.stdin.readline()))))
