"""Who is at the two ends of a link."""

from dataclasses import dataclass

from cluster.messages import Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnd:
    """One rank of an instance in one of its lives, and how many ranks that has."""

    holder: Holder
    rank: int = 0
    num_ranks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKey:
    """A link: one direction between two ranks, and where the receiving one listens (`host:port`)."""

    source: LinkEnd
    receiver: LinkEnd
    address: str
