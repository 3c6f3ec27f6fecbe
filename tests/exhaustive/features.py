"""What the search has to know of a local state to tell what can happen next, and whether a law is broken."""

from typing import Any, NamedTuple

from cluster.messages import Epoch
from tests.exhaustive import cast
from tests.exhaustive.front import Front
from tests.exhaustive.node import Node

Life = tuple[int, int]  # an instance and its incarnation


class FrontFeatures(NamedTuple):
    """`awaited`: instances that have not told a new router what they hold."""

    term: int
    is_queued: bool
    has_entry: bool
    may_hand_over: bool
    end: str | None
    is_empty: bool
    is_adopting: bool
    joined: tuple[Life, ...]
    awaited: tuple[Life, ...]


class NodeFeatures(NamedTuple):
    """`copies`: (epoch, whether it may run) of what is hosted. `sources`: who reserved something here."""

    is_empty: bool
    has_open_handover: bool
    copies: tuple[tuple[Epoch, bool], ...]
    sources: frozenset[Life]


def front_features(front: Front) -> FrontFeatures:
    entry, adoption = front.entry, front.adoption
    awaited: Any = (adoption._awaited or set()) - adoption.reports.keys() if adoption else ()
    return FrontFeatures(
        term=front.term,
        is_queued=front.is_queued,
        has_entry=entry is not None,
        may_hand_over=entry is not None and entry.owner is not None and entry.grant is None,
        end=front.end,
        is_empty=front.is_empty,
        is_adopting=adoption is not None,
        joined=tuple(sorted(cast.key(it) for it in front.joined)),
        awaited=tuple(sorted(cast.key(it) for it in awaited)),
    )


def node_features(node: Node) -> NodeFeatures:
    return NodeFeatures(
        is_empty=node.is_empty,
        has_open_handover=bool(node.core._outbound._open),
        copies=node.copies,
        sources=frozenset(cast.key(it.receiver.source) for it in node.core._inbound._all.values()),
    )
