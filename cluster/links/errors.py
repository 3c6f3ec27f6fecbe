"""How a transfer, or a whole link, fails. Both end in a reason that is told to the engine, never in a hang."""


class LinkError(Exception):
    """The link can no longer be used and is torn down; the next transfer makes it anew."""


class MalformedFrame(LinkError):
    """The peer says what makes no sense on a link."""


class TransferRefused(Exception):
    """The receiver did not take, or did not accept, this one transfer; the link goes on."""
