"""An instance's links in a process of their own, told what to do over a pipe."""

import os
import signal
import threading
from collections.abc import Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from cluster import failpoints
from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.shared_region import SharedRegion
from cluster.links.slot_table import SlotTable
from cluster.messages import BlockTransfer, Epoch, Holder
from cluster.secret import SECRET_BYTES, ClusterSecret
from tests.forked import fork_server
from tests.netns.hosts import Host, settle_on

NUM_BLOCKS = 256
RECORD_BYTES = 64 << 10
EPOCH = Epoch(1, 1)
SECRET = ClusterSecret(bytes(SECRET_BYTES))
PATIENCE_S = 30.0


class LinkProcess:
    """A child: `call` runs a method of `Peer` there, `event` waits for the next thing that its links tell.

    `failpoints` is what BATON_FAILPOINTS would say; a thread that comes to the place `hold` says ("held",) and stays.
    `on` is the host that it runs on, where it is not to be this one.
    """

    def __init__(
        self,
        name: str,
        *,
        incarnation: int = 1,
        failpoints: str = "",
        hold: str = "",
        on: Host | None = None,
        **config: Any,
    ) -> None:
        context = fork_server()
        self._pipe, theirs = context.Pipe()
        self._events, their_events = context.Pipe(duplex=False)
        arguments = (theirs, their_events, Holder(name, incarnation), failpoints, hold, on, LinkConfig(**config))
        self._process = context.Process(target=_serve, args=arguments, daemon=True)
        self._process.start()
        theirs.close()
        their_events.close()
        self.holder = Holder(name, incarnation)
        self.address: str = self._answer()

    def call(self, method: str, *arguments: Any) -> Any:
        self._pipe.send((method, arguments))
        return self._answer()

    def event(self) -> tuple[Any, ...]:
        assert self._events.poll(PATIENCE_S), "nothing was told"
        return self._events.recv()

    def send(self, receiver: "LinkProcess", block_ids: Iterable[int], reservation: int = 1) -> None:
        self.call("send", receiver.address, receiver.holder, tuple(block_ids), reservation)

    def signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)
        while number == signal.SIGSTOP and not self._stands_still():
            os.sched_yield()

    def _stands_still(self) -> bool:
        """A stop reaches each thread in its own time; it is no child of ours, so nobody tells us when."""
        states = [
            stat.read_text().rpartition(")")[2] for stat in Path(f"/proc/{self._process.pid}/task").glob("*/stat")
        ]
        return all(state.startswith(" T") for state in states)

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()
        self._events.close()

    def _answer(self) -> Any:
        assert self._pipe.poll(PATIENCE_S), "no answer"
        return self._pipe.recv()


class Peer:
    """What happens in the child. Block b of instance x holds bytes drawn from (x, b), until something arrives there."""

    def __init__(self, events: Connection, holder: Holder, config: LinkConfig, host: str = "127.0.0.1") -> None:
        self._events = events
        memory = SharedRegion.create(NUM_BLOCKS * RECORD_BYTES)
        self._region = KvRegion(memory.buffer, RECORD_BYTES, memory.path)
        for block_id in range(NUM_BLOCKS):
            self._region.records[block_id] = content(holder.instance, block_id)
        self._slots = SlotTable(lambda reservation: self._tell("quiet", reservation))
        self.listener = LinkListener(holder, self._region, self._slots, config, self, secret=SECRET, host=host)
        self._links = OutgoingLinks(holder, self._region, config, self, secret=SECRET)

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._tell("sent", transfer.reservation)

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._tell("failed", transfer.reservation, reason)

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        self._tell("arrived", reservation, first_block, count)

    def on_bad(self, reservation: int, reason: str) -> None:
        self._tell("bad", reservation, reason)

    def on_damaged(self) -> None:
        self._tell("damaged")

    def on_unauthenticated(self) -> None:
        self._tell("unauthenticated")

    def on_malformed(self) -> None:
        self._tell("malformed")

    def send(self, address: str, receiver: Holder, block_ids: tuple[int, ...], reservation: int) -> None:
        transfer = BlockTransfer(
            request_id="r",
            epoch=EPOCH,
            reservation=reservation,
            first_block=0,
            block_ids=block_ids,
            checksums=self._region.checksums(block_ids),
        )
        self._links.send(address, receiver, transfer)

    def split(self, receiver: Holder, num_connections: int) -> None:
        self._links.split(receiver, num_connections)

    def reserve(self, source: str, reservation: int, block_ids: tuple[int, ...]) -> None:
        self._slots.open(reservation, Holder(source, 1), EPOCH, block_ids, 0)

    def release(self, reservation: int) -> bool:
        return self._slots.close(reservation)

    def holds(self, instance: str, theirs: tuple[int, ...], mine: tuple[int, ...]) -> bool:
        """Whether these blocks here are those blocks of that instance."""
        pairs = zip(theirs, mine, strict=True)
        return all(np.array_equal(self._region.records[here], content(instance, there)) for there, here in pairs)

    def failures(self) -> dict[str, tuple[str, int]]:
        return {status.target: (status.transport, status.num_failures) for status in self._links.status()}

    def hold(self, *_: Any) -> None:
        self._tell("held")
        threading.Event().wait()

    def _tell(self, *event: Any) -> None:
        self._events.send(event)  # small enough to be written in one piece, whichever link's thread it is


def content(instance: str, block_id: int) -> np.ndarray:
    """What a block holds when its instance starts: uint8[RECORD_BYTES]."""
    return np.random.default_rng([*instance.encode(), block_id]).integers(0, 256, RECORD_BYTES, np.uint8)


def _serve(
    pipe: Connection,
    events: Connection,
    holder: Holder,
    armed: str,
    hold: str,
    on: Host | None,
    config: LinkConfig,
) -> None:
    if on is not None:
        settle_on(on)
    failpoints.arm_from_environment(armed)
    peer = Peer(events, holder, config, on.address if on else "127.0.0.1")
    pipe.send(peer.listener.address)
    with failpoints.armed(hold, peer.hold):
        while True:
            method, arguments = pipe.recv()
            pipe.send(getattr(peer, method)(*arguments))
