"""Who is at the two ends of a link."""

from dataclasses import dataclass

from cluster.messages import Holder


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEnd:
    """One rank of an instance in one of its lives, and how many ranks that has."""

    holder: Holder
    rank: int = 0
    num_ranks: int = 1


def rank_addresses(link_address: str) -> tuple[str, ...]:
    """Where the ranks of an instance listen, by rank: what an instance calls its `link_address`."""
    return tuple(link_address.split(","))


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkKey:
    """A link: one direction between two ranks, and where the receiving one listens (`host:port`)."""

    source: LinkEnd
    receiver: LinkEnd
    address: str
