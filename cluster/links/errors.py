"""How a transfer, or a whole link, fails. Both end in a reason that is told to the engine, never in a hang."""

from collections.abc import Callable


class LinkError(Exception):
    """The link can no longer be used and is torn down; the next transfer makes it anew."""


class MalformedFrame(LinkError):
    """The peer says what makes no sense on a link."""


class TransferRefused(Exception):
    """The receiver did not take, or did not accept, this one transfer; the link goes on."""


class BlockDamaged(Exception):
    """All came in full, and the checksum of a block does not fit: nothing of it arrived; the link goes on."""


class MemoryInUse(LinkError):
    """The link is over, but what it has posted may still touch the blocks: law 9 keeps them until it is dead.

    `when_dead` calls back once, at once or from another thread; never, if it is never known.
    """

    def __init__(self, reason: str, when_dead: Callable[[Callable[[], None]], None]) -> None:
        super().__init__(reason)
        self.when_dead = when_dead
