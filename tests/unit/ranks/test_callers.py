"""Whoever can reach a rank's port, and does not know the secret, is in nobody's way."""

import queue
import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from types import SimpleNamespace

import pytest

from cluster.handshake import Unauthenticated, draw_secret
from cluster.pb.ranks_pb2 import LinksHello, RankHello
from cluster.ranks import channel as channel_module
from cluster.ranks.callers import Callers
from cluster.ranks.channel import RankChannel
from cluster.ranks.greeting import answer, call

pytestmark = pytest.mark.unit

SECRET = draw_secret()


@pytest.fixture
def callers() -> Iterator[Callers]:
    callers = Callers(SECRET, "127.0.0.1", 0)
    yield callers
    callers.close()


def connect(callers: Callers) -> socket.socket:
    host, port = callers.address.split(":")
    return socket.create_connection((host, int(port)))


def pair() -> tuple[socket.socket, RankChannel]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        return ours, RankChannel(listener.accept()[0])


def test_nobody_waits_for_strangers_who_say_nothing_or_little(callers: Callers) -> None:
    silent, slow = connect(callers), connect(callers)
    slow.sendall(struct.pack("<I", 1000) + b"a")
    with silent, slow, closing(call(callers.address, "hello", RankHello(rank=3), SECRET)) as theirs:
        ours, hello = callers.first("hello")
        with closing(ours):
            assert hello.rank == 3
            large = bytes(1 << 20)  # more than a stranger may send
            theirs.send(struct.pack("<I", 7))
            assert ours.receive() == struct.pack("<I", 7)
            ours.send(b"a" * 10)
            assert theirs.receive() == b"a" * 10
            theirs.send(large)
            assert ours.receive() == large


def test_each_kind_of_call_is_taken_once_and_only_from_who_knows_the_secret(callers: Callers) -> None:
    with pytest.raises(Unauthenticated):
        call(callers.address, "hello", RankHello(rank=1), draw_secret())
    with (
        closing(call(callers.address, "hello", RankHello(rank=2), SECRET)),
        closing(callers.first("hello")[0]),
        closing(call(callers.address, "hello", RankHello(rank=3), SECRET)) as second,
        closing(call(callers.address, "links_hello", LinksHello(transport="tcp"), SECRET)),
        closing(callers.first("links_hello")[0]),
    ):
        assert second.receive() is None
        assert callers.first("hello")[1].rank == 2
        assert callers.first("links_hello")[1].transport == "tcp"


def test_strangers_are_told_of_whenever_they_called(callers: Callers) -> None:
    strangers: queue.SimpleQueue[None] = queue.SimpleQueue()

    def call_as_a_stranger() -> None:
        with pytest.raises(Unauthenticated):
            call(callers.address, "hello", RankHello(rank=1), draw_secret())

    call_as_a_stranger()
    with closing(call(callers.address, "hello", RankHello(rank=2), SECRET)), closing(callers.first("hello")[0]):
        callers.tell_strangers(lambda: strangers.put(None))
        strangers.get(timeout=10)
        call_as_a_stranger()
        strangers.get(timeout=10)
        with connect(callers):
            pass
        strangers.get(timeout=10)
    assert strangers.empty()


def test_no_memory_is_taken_for_what_a_stranger_announces() -> None:
    theirs, channel = pair()
    with theirs, closing(channel):
        theirs.sendall(struct.pack("<I", 256 << 20))
        with pytest.raises(ConnectionError, match="a frame of 268435456 bytes: not a rank"):
            answer(channel, SECRET)


def test_a_limit_is_for_all_that_is_received(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, channel = pair()
    clock = iter(range(100))
    with theirs, closing(channel), monkeypatch.context() as patch:
        patch.setattr(channel_module, "time", SimpleNamespace(monotonic=lambda: float(next(clock))))
        theirs.sendall((struct.pack("<I", 2) + b"ab") * 3)
        channel.limit(4.5)  # each frame is read in two pieces, a second each
        assert [channel.receive(), channel.receive()] == [b"ab", b"ab"]
        with pytest.raises(TimeoutError):
            channel.receive()
        channel.limit(None)
        assert channel.receive() is not None


def test_a_host_that_is_gone_is_noticed_also_while_what_was_sent_is_not_acknowledged() -> None:
    """The kernel asks nothing as long as it repeats what was sent, for a quarter of an hour."""
    theirs, channel = pair()
    with closing(channel), closing(RankChannel(theirs)):
        assert theirs.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 4000
