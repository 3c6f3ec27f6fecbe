"""Transfers over four connections between real processes: those die and freeze, and everything ends in an event."""

import signal
from collections.abc import Callable, Iterator

import pytest

from .link_processes import LinkProcess

pytestmark = pytest.mark.integration

SOURCE_BLOCKS = tuple(range(64))  # 4 MiB
TARGET_BLOCKS = tuple(reversed(range(100, 164)))
NUM_CONNECTIONS = 4


@pytest.fixture
def make_pair() -> Iterator[Callable[..., tuple[LinkProcess, LinkProcess]]]:
    """A source that splits its transfers, the same each time, and another life of a receiver that expects one."""
    processes: list[LinkProcess] = []

    def make(
        incarnation: int = 1, *, hold_source: str = "", hold_receiver: str = "", timeout_s: float = 10.0
    ) -> tuple[LinkProcess, LinkProcess]:
        if not processes:
            processes.append(LinkProcess("prefill-0", transport="tcp", hold=hold_source, transfer_timeout_s=timeout_s))
        receiver = LinkProcess("decode-0", incarnation=incarnation, hold=hold_receiver, transfer_timeout_s=timeout_s)
        processes.append(receiver)
        receiver.call("reserve", "prefill-0", 1, TARGET_BLOCKS)
        processes[0].call("split", receiver.holder, NUM_CONNECTIONS)
        return processes[0], receiver

    yield make
    for process in processes:
        process.close()


def has_arrived(source: LinkProcess, receiver: LinkProcess) -> bool:
    assert source.event() == ("sent", 1)
    return bool(receiver.call("holds", "prefill-0", SOURCE_BLOCKS, TARGET_BLOCKS))


def test_blocks_arrive_over_all_connections_as_they_were(make_pair):
    source, receiver = make_pair()
    source.send(receiver, SOURCE_BLOCKS)
    assert has_arrived(source, receiver)
    assert receiver.event() == ("arrived", 1, 0, 64)


def test_a_killed_receiver_is_a_failed_send_and_its_next_life_gets_all_connections_anew(make_pair):
    source, first = make_pair(hold_receiver="links.receive.record")
    source.send(first, SOURCE_BLOCKS)
    for _ in range(NUM_CONNECTIONS):
        assert first.event() == ("held",)
    first.signal(signal.SIGKILL)
    assert source.event()[:2] == ("failed", 1)
    _, second = make_pair(incarnation=2)
    source.send(second, SOURCE_BLOCKS)
    assert has_arrived(source, second)


def test_a_killed_source_leaves_no_block_in_quarantine(make_pair):
    source, receiver = make_pair(hold_source="links.source.batch")
    source.send(receiver, SOURCE_BLOCKS)
    for _ in range(NUM_CONNECTIONS):
        assert source.event() == ("held",)
    assert not receiver.call("release", 1)
    source.signal(signal.SIGKILL)
    assert receiver.event() == ("quiet", 1)


def test_a_frozen_receiver_is_a_failed_send_by_the_deadline_and_serves_again_when_it_thaws(make_pair):
    source, receiver = make_pair(timeout_s=1.0)
    source.send(receiver, SOURCE_BLOCKS)
    assert has_arrived(source, receiver)  # all connections are there
    receiver.call("reserve", "prefill-0", 2, tuple(range(170, 234)))
    receiver.signal(signal.SIGSTOP)
    source.send(receiver, SOURCE_BLOCKS, reservation=2)
    kind, reservation, reason = source.event()
    assert (kind, reservation) == ("failed", 2)
    assert "within" in reason
    receiver.signal(signal.SIGCONT)
    receiver.call("reserve", "prefill-0", 3, tuple(range(64)))
    source.send(receiver, SOURCE_BLOCKS, reservation=3)
    assert source.event() == ("sent", 3)
    assert receiver.call("holds", "prefill-0", SOURCE_BLOCKS, tuple(range(64)))
