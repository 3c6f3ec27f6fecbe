from collections.abc import Callable, Iterator
from typing import Any

import pytest

from cluster.links.config import LinkConfig
from cluster.secret import ClusterSecret

from .factories import EPOCH, RECORD_BYTES, SECRET, TARGET_BLOCKS, Node


@pytest.fixture
def make_node() -> Iterator[Callable[..., Node]]:
    nodes: list[Node] = []

    def make(
        name: str,
        *,
        incarnation: int = 1,
        num_blocks: int = 16,
        record_bytes: int = RECORD_BYTES,
        secret: ClusterSecret = SECRET,
        **options: Any,
    ) -> Node:
        nodes.append(Node(name, incarnation, num_blocks, record_bytes, LinkConfig(**options), secret))
        return nodes[-1]

    yield make
    for node in nodes:
        node.close()


@pytest.fixture(params=["shm", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def pair(make_node: Callable[..., Node], transport: str) -> tuple[Node, Node]:
    """A source, and a receiver that has reserved five blocks."""
    source, receiver = make_node("prefill-0", transport=transport), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    return source, receiver
