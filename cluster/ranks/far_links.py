"""The links of another rank, as rank 0 uses them."""

import threading
from collections.abc import Iterable
from dataclasses import asdict, fields
from itertools import count
from typing import Any, Protocol

from cluster.links.config import LinkConfig
from cluster.links.events import SourceEvents
from cluster.links.link_stats import LinkStatus
from cluster.messages import BlockTransfer, Epoch, Holder
from cluster.pb.ranks_pb2 import Dropped, LinksHello, RankFrame, RankLinkStatus
from cluster.ranks.errors import RankLost
from cluster.ranks.greeting import GREETING_TIMEOUT_S, call
from cluster.secret import ClusterSecret
from cluster.wire.values import epoch_to_pb, holder_to_pb


class FarEvents(SourceEvents, Protocol):
    """What another rank's links tell, from a thread of theirs."""

    def on_far_arrived(self, reservation: int, first_block: int, count: int) -> None: ...

    def on_bad(self, reservation: int, reason: str) -> None: ...

    def on_quiet(self, reservation: int) -> None: ...

    def on_damaged(self) -> None: ...

    def on_unauthenticated(self) -> None: ...

    def on_malformed(self) -> None: ...


class FarLinks:
    """Each call raises RankLost when the rank is gone."""

    def __init__(
        self, rank: int, address: str, holder: Holder, config: LinkConfig, secret: ClusterSecret, events: FarEvents
    ) -> None:
        self._rank = rank
        self._events = events
        hello = LinksHello(holder=holder_to_pb(holder), **asdict(config))
        self._channel = call(address, "links_hello", hello, secret)
        self.link_address = self._channel.hear("links_ready").links_ready.link_address
        self._speaking = threading.Lock()
        self._heard = threading.Condition()
        self._opened: set[int] = set()
        self._is_gone = False
        self._transfers: dict[int, BlockTransfer] = {}
        self._status: dict[tuple[str, int], LinkStatus] = {}  # by instance and rank
        self._numbers = count(1)
        self._thread = threading.Thread(target=self._listen, name=f"links of rank {rank}", daemon=True)
        self._thread.start()

    def seal(self, block_ids: tuple[int, ...]) -> None:
        self._say(seal={"block_ids": block_ids})

    def open(
        self, reservation: int, source: Holder, epoch: Epoch, block_ids: tuple[int, ...], first_block: int
    ) -> None:
        """Returns when it is open: whoever is told of the reservation from now on is let in."""
        what = {"reservation": reservation, "source": holder_to_pb(source), "epoch": epoch_to_pb(epoch)}
        self._say(open={**what, "block_ids": block_ids, "first_block": first_block})
        with self._heard:
            is_open = self._heard.wait_for(lambda: reservation in self._opened or self._is_gone, GREETING_TIMEOUT_S)
            if not is_open or self._is_gone:
                raise RankLost(self._rank, "it opens no slots")
            self._opened.remove(reservation)

    def close_slots(self, reservation: int) -> None:
        """`on_quiet` follows."""
        self._say(close={"reservation": reservation})

    def send(self, link_address: str, receiver: Holder, transfer: BlockTransfer) -> None:
        """What it has of these blocks; one event follows."""
        number = next(self._numbers)
        self._transfers[number] = transfer
        what = {
            "number": number,
            "link_address": link_address,
            "receiver": holder_to_pb(receiver),
            "request_id": transfer.request_id,
            "epoch": epoch_to_pb(transfer.epoch),
            "reservation": transfer.reservation,
            "first_block": transfer.first_block,
            "block_ids": transfer.block_ids,
        }
        self._say(send=what)

    def status(self) -> list[LinkStatus]:
        """Of its links, as they were when they last sent."""
        with self._heard:
            return list(self._status.values())

    def close(self) -> None:
        self._channel.shutdown()
        self._thread.join()
        self._channel.close()

    def _say(self, **message: Any) -> None:
        try:
            with self._speaking:
                self._channel.say(**message)
        except OSError as error:
            raise RankLost(self._rank, str(error)) from error

    def _listen(self) -> None:
        try:
            while (frame := self._channel.hear_any()) is not None:
                self._act(frame)
        finally:
            with self._heard:
                self._is_gone = True
                self._heard.notify_all()

    def _act(self, frame: RankFrame) -> None:
        match frame.WhichOneof("message"):
            case "opened":
                with self._heard:
                    self._opened.add(frame.opened.reservation)
                    self._heard.notify_all()
            case "arrived":
                arrived = frame.arrived
                self._events.on_far_arrived(arrived.reservation, arrived.first_block, arrived.count)
            case "bad":
                self._events.on_bad(frame.bad.reservation, frame.bad.reason)
            case "quiet":
                self._events.on_quiet(frame.quiet.reservation)
            case "dropped":
                self._on_dropped(frame.dropped.kind)
            case "sent":
                self._keep(frame.sent.links)
                transfer = self._transfers.pop(frame.sent.number)
                if frame.sent.error:
                    self._events.on_send_failed(transfer, f"rank {self._rank}: {frame.sent.error}")
                else:
                    self._events.on_sent(transfer)

    def _on_dropped(self, kind: int) -> None:
        match kind:
            case Dropped.KIND_DAMAGED:
                self._events.on_damaged()
            case Dropped.KIND_UNAUTHENTICATED:
                self._events.on_unauthenticated()
            case Dropped.KIND_MALFORMED:
                self._events.on_malformed()

    def _keep(self, links: Iterable[RankLinkStatus]) -> None:
        with self._heard:
            for link in links:
                status = LinkStatus(**{each.name: getattr(link, each.name) for each in fields(LinkStatus)})
                self._status[status.target, status.target_rank] = status
