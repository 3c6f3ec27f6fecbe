"""What links tell the engine. Called from link threads: implementations only hand the news on."""

from typing import Protocol

from cluster.messages import BlockTransfer


class SourceEvents(Protocol):
    """A transfer given to `OutgoingLinks.send` ends in exactly one of these; until then its blocks must not change."""

    def on_sent(self, transfer: BlockTransfer) -> None:
        """It arrived and was checked."""

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        """May be called from within `send`."""


class ReceiverEvents(Protocol):
    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        """These blocks are in place; told before the source learns of it. No checksums when they are off."""

    def on_bad(self, reservation: int, reason: str) -> None:
        """An offer was refused, or what came was damaged, late or cut off: nothing of it has arrived."""

    def on_damaged(self) -> None:
        """The checksum of a block that came did not fit; `on_bad` follows if anybody still waits for it."""

    def on_unauthenticated(self) -> None:
        """Somebody who wanted a link was sent away: no proof that it belongs to the cluster."""

    def on_malformed(self) -> None:
        """A link was ended because what its peer said made no sense; or an offer was for what another had reserved."""
