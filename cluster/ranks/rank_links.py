"""The links of a rank other than 0: it sends and takes its part of each block, as rank 0 tells it."""

import threading
from dataclasses import asdict
from typing import Any

from cluster.instance.checksums import KvChecksums
from cluster.links.config import LinkConfig
from cluster.links.device_region import Region
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.slot_table import SlotTable
from cluster.links.weights_sender import WeightsSender
from cluster.messages import BlockTransfer
from cluster.pb.ranks_pb2 import Dropped, LinksHello, OpenSlots, RankFrame, SendBlocks
from cluster.ranks.callers import Callers
from cluster.ranks.channel import RankChannel
from cluster.secret import ClusterSecret
from cluster.wire.values import epoch_from_pb, holder_from_pb


class RankLinks:
    """`run` serves rank 0 until it hangs up. Implements `SourceEvents` and `ReceiverEvents`."""

    def __init__(
        self,
        channel: RankChannel,
        hello: LinksHello,
        region: Region,
        *,
        rank: int,
        num_ranks: int,
        secret: ClusterSecret,
        host: str,
        weights: WeightsSender,
        callers: Callers,
    ) -> None:
        holder = holder_from_pb(hello.holder)
        config = link_config(hello)
        ranks: Any = {"rank": rank, "num_ranks": num_ranks, "secret": secret}
        self._channel = channel
        self._callers = callers
        self._speaking = threading.Lock()
        self._slots = SlotTable(self.on_quiet)
        self._checksums = KvChecksums(region, enabled=config.checksum)
        self._opened: dict[int, OpenSlots] = {}
        self._numbers: dict[BlockTransfer, tuple[int, str]] = {}  # and to which instance
        self._links = OutgoingLinks(holder, region, config, self, **ranks)
        self._listener = LinkListener(holder, region, self._slots, config, self, host=host, weights=weights, **ranks)

    def run(self) -> None:
        """Raises OSError for what rank 0 cannot have said."""
        self._say(links_ready={"link_address": self._listener.address})
        try:
            self._callers.tell_strangers(self.on_unauthenticated)
            while (frame := self._channel.hear_any()) is not None:
                self._act(frame)
        finally:
            self._links.close()
            self._listener.close()

    def _act(self, frame: RankFrame) -> None:
        match frame.WhichOneof("message"):
            case "seal":
                self._checksums.seal(frame.seal.block_ids)
            case "open":
                self._open(frame.open)
            case "close":
                self._opened.pop(frame.close.reservation, None)
                if self._slots.close(frame.close.reservation):
                    self.on_quiet(frame.close.reservation)
            case "send":
                self._send(frame.send)
            case other:
                raise ConnectionError(f"rank 0 sent {other} to a rank's links")

    def _open(self, message: OpenSlots) -> None:
        self._opened[message.reservation] = message
        source, epoch = holder_from_pb(message.source), epoch_from_pb(message.epoch)
        self._slots.open(message.reservation, source, epoch, message.block_ids, message.first_block)
        self._say(opened={"reservation": message.reservation})

    def _send(self, message: SendBlocks) -> None:
        block_ids = tuple(message.block_ids)
        transfer = BlockTransfer(
            request_id=message.request_id,
            epoch=epoch_from_pb(message.epoch),
            reservation=message.reservation,
            first_block=message.first_block,
            block_ids=block_ids,
            checksums=self._checksums.get(block_ids),
        )
        receiver = holder_from_pb(message.receiver)
        self._numbers[transfer] = message.number, receiver.instance
        self._links.send(message.link_address, receiver, transfer)

    def _say(self, **message: Any) -> None:
        with self._speaking:
            self._channel.say(**message)

    # In links' threads

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._say_sent(transfer)

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._say_sent(transfer, reason)

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        if (opened := self._opened.get(reservation)) is not None:
            start = first_block - opened.first_block
            self._checksums.put(opened.block_ids[start : start + count], checksums)
        self._say(arrived={"reservation": reservation, "first_block": first_block, "count": count})

    def on_bad(self, reservation: int, reason: str) -> None:
        self._say(bad={"reservation": reservation, "reason": reason})

    def on_quiet(self, reservation: int) -> None:
        self._say(quiet={"reservation": reservation})

    def on_damaged(self) -> None:
        self._say(dropped={"kind": Dropped.KIND_DAMAGED})

    def on_unauthenticated(self) -> None:
        self._say(dropped={"kind": Dropped.KIND_UNAUTHENTICATED})

    def on_malformed(self) -> None:
        self._say(dropped={"kind": Dropped.KIND_MALFORMED})

    def _say_sent(self, transfer: BlockTransfer, error: str = "") -> None:
        number, target = self._numbers.pop(transfer)
        links = [asdict(link) for link in self._links.status(target)]
        self._say(sent={"number": number, "error": error, "links": links})


def link_config(hello: LinksHello) -> LinkConfig:
    return LinkConfig(**{name: getattr(hello, name) for name in LinkConfig.__dataclass_fields__})
