"""Large transfers over several connections of one link: the same promises as over one."""

import gc
import os
import socket
import threading
import time

import numpy as np
import pytest

from cluster import failpoints
from cluster.handshake import Caller
from cluster.links import frame_socket, lanes
from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.frame_socket import FrameSocket
from cluster.links.probe.node import ProbeNode
from cluster.links.probe.transfer import ProbeTransfer
from cluster.links.source_connection import SourceConnection
from cluster.pb.links_pb2 import LinkFrame
from cluster.secret import Kind

from .factories import EPOCH, PATIENCE_S, SECRET, Gate
from .test_links_strangers import make_hello
from .test_probes import probe

pytestmark = pytest.mark.unit

RECORD_BYTES = 64 << 10
NUM_BLOCKS = 40
SOURCE_BLOCKS = tuple(range(33))
TARGET_BLOCKS = tuple(reversed(range(5, 38)))
SO_MAX_PACING_RATE = 47


@pytest.fixture
def wide(make_node):
    """A tcp link with more than 2 MiB to move over four connections."""
    source = make_node("prefill-0", transport="tcp", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    receiver = make_node("decode-0", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.links.split(receiver.holder, 4)
    return source, receiver


def connections_of(receiver) -> list[int]:
    return [link._lanes.num_connections for link in receiver.listener._links]


def has_arrived(source, receiver) -> bool:
    source.events.next("on_sent")
    receiver.events.next("on_arrived")
    return receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def test_blocks_arrive_over_all_connections(wide):
    source, receiver = wide
    threads: set[int] = set()
    with failpoints.armed("links.receive.record", lambda record: threads.add(threading.get_ident())):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert has_arrived(source, receiver)
    assert len(threads) == 4
    assert connections_of(receiver) == [4]
    (status,) = source.links.status()
    assert (status.num_connections, status.num_transfers, status.num_bytes) == (4, 1, 33 * RECORD_BYTES)


def test_a_transfer_with_fewer_blocks_than_connections_arrives(make_node):
    source = make_node("prefill-0", transport="tcp", record_bytes=1 << 20, num_blocks=4)
    receiver = make_node("decode-0", record_bytes=1 << 20, num_blocks=4)
    receiver.slots.open(1, source.holder, EPOCH, (2, 0), first_block=0)
    source.links.split(receiver.holder, 4)
    source.send(receiver, source.transfer((1, 3)))
    source.events.next("on_sent")
    assert receiver.content((2, 0)) == source.content((1, 3))


def test_small_transfers_go_over_one(wide):
    source, receiver = wide
    source.send(receiver, source.transfer(SOURCE_BLOCKS[:3]))
    source.events.next("on_sent")
    assert connections_of(receiver) == [1]


def test_what_is_in_shared_memory_has_one_connection(make_node):
    source = make_node("prefill-0", transport="shm", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    receiver = make_node("decode-0", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.links.split(receiver.holder, 4)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)
    assert source.links.status()[0].num_connections == 1


def test_a_block_damaged_on_any_connection_does_not_arrive_and_the_link_goes_on(wide):
    source, receiver = wide
    last = receiver.region.records[TARGET_BLOCKS[-1]]

    def damage(record):
        if np.shares_memory(record, last):
            failpoints.flip(record)

    with failpoints.armed("links.receive.record", damage):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert source.events.next("on_send_failed")[1] == "wrong checksum of block 32"
    receiver.events.next("on_damaged")
    receiver.events.next("on_bad")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)
    assert connections_of(receiver) == [4]


@pytest.mark.parametrize("where", ["links.source.batch", "links.receive.record"])
@pytest.mark.parametrize("hit", [1, 2])
def test_a_connection_that_is_cut_fails_the_link_which_is_made_again(wide, where, hit):
    source, receiver = wide
    counting, num_hits = threading.Lock(), 0

    def cut(*_):
        nonlocal num_hits
        with counting:
            num_hits += 1
            is_it = num_hits == hit
        if is_it:
            failpoints.cut()

    with failpoints.armed(where, cut):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_send_failed")
        assert "cut off" in receiver.events.next("on_bad")[1]
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)


def test_blocks_are_in_quarantine_until_the_last_connection_is_done_with_them(wide):
    """Law 9: three connections are dead, and the fourth is still in the middle of a record."""
    source, receiver = wide
    gate, held = Gate(), receiver.region.records[TARGET_BLOCKS[33 * 3 // 4]]  # the first that comes over the last

    def stay_or_fail(record):
        if np.shares_memory(record, held):
            gate()
        elif gate.reached.wait(PATIENCE_S):
            failpoints.cut()

    with failpoints.armed("links.receive.record", stay_or_fail):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_send_failed")  # the source has noticed
        assert not receiver.slots.close(1)
        assert receiver.events.is_silent
        gate.opened.set()
        assert receiver.events.next("on_quiet") == (1,)
    assert receiver.slots.num_reservations == 0


def test_the_source_keeps_its_blocks_until_no_connection_sends_them(wide):
    source, receiver = wide
    gates = Gate()

    def stay_or_fail(batch):
        if np.shares_memory(batch[-1], source.region.records[SOURCE_BLOCKS[-1]]):
            gates()
        elif gates.reached.wait(PATIENCE_S):
            failpoints.cut()

    with failpoints.armed("links.source.batch", stay_or_fail):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        receiver.events.next("on_bad")
        assert source.events.is_silent
        gates.opened.set()
        source.events.next("on_send_failed")


@pytest.mark.parametrize("end", ["source", "receiver"])
def test_closing_within_a_split_transfer_ends_it_on_all_connections(wide, end):
    source, receiver = wide
    gate = Gate()

    def stay(batch):
        if np.shares_memory(batch[-1], source.region.records[SOURCE_BLOCKS[-1]]):
            gate()

    with failpoints.armed("links.source.batch", stay):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert gate.reached.wait(PATIENCE_S)
        closing = threading.Thread(target=source.links.close if end == "source" else receiver.listener.close)
        closing.start()
        assert "cut off" in receiver.events.next("on_bad")[1]
        gate.opened.set()
        closing.join(PATIENCE_S)
        assert not closing.is_alive()
    source.events.next("on_send_failed")


def test_closing_ends_the_greeting_of_a_further_connection(make_node, monkeypatch):
    source = make_node(
        "prefill-0", transport="tcp", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS, setup_timeout_s=60
    )
    receiver = make_node("decode-0", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    gate, links = Gate(), receiver.listener._receiving.links
    join_later = links.join
    monkeypatch.setattr(links, "join", lambda *arguments: gate() or join_later(*arguments))
    source.links.split(receiver.holder, 2)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert gate.reached.wait(PATIENCE_S)
    closing = threading.Thread(target=source.links.close)
    closing.start()
    closing.join(PATIENCE_S / 2)
    try:
        assert not closing.is_alive()
    finally:
        gate.opened.set()
    assert source.events.next("on_send_failed")[1] == "links are closed"


@pytest.fixture
def only_two(monkeypatch):
    monkeypatch.setattr(lanes, "MAX_CONNECTIONS", 2)


def test_blocks_go_over_what_connections_can_be_had(wide, only_two):
    source, receiver = wide
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)
    (status,) = source.links.status()
    assert (status.num_connections, status.num_failures) == (2, 0)
    assert status.note.startswith("2 of 4 connections: ")
    assert "2 connections already" in status.note
    source.links.split(receiver.holder, 2)
    assert source.links.status()[0].note == ""


def test_a_probe_over_connections_that_cannot_be_had_fails_alone(wide, only_two):
    source, receiver = wide
    gate = Gate()
    with failpoints.armed("links.source.offer", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:3]))
        assert gate.reached.wait(PATIENCE_S)
        outcome = probe(source, receiver, 4 << 20, num_connections=4)
        another = probe(source, receiver, 4 << 20, num_connections=2)
        gate.opened.set()
    assert "2 connections already" in outcome.get().reason
    assert another.get().seconds is not None
    assert receiver.listener.num_links == 1
    source.events.next("on_sent")
    assert source.events.is_silent
    receiver.slots.close(1)
    receiver.slots.open(2, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.send(receiver, source.transfer(SOURCE_BLOCKS, reservation=2))
    source.events.next("on_sent")


def test_a_connection_whose_welcome_is_lost_is_not_made_again(wide, monkeypatch):
    """The receiver counts it, and this end does not."""
    source, receiver = wide
    greet = SourceConnection._greet
    num_greetings = 0

    def lose_third(*arguments, **options):
        nonlocal num_greetings
        num_greetings += 1
        welcome = greet(*arguments, **options)
        if num_greetings == 3:
            raise LinkError("the welcome is lost")
        return welcome

    monkeypatch.setattr(SourceConnection, "_greet", lose_third)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)
    assert source.links.status()[0].note == "2 of 4 connections: the welcome is lost"
    assert probe(source, receiver, 4 << 20, num_connections=3).get().reason == "the welcome is lost"
    assert probe(source, receiver, 4 << 20, num_connections=2).get().seconds is not None
    assert num_greetings == 3


def test_connections_that_are_not_kept_are_closed_at_both_ends(wide):
    source, receiver = wide
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert has_arrived(source, receiver)
    num_threads = threading.active_count()
    assert probe(source, receiver, 4096, num_kept=2).get().seconds is not None
    assert connections_of(receiver) == [2]
    assert threading.active_count() == num_threads - 4
    assert probe(source, receiver, 2 << 20, num_connections=2).get().seconds is not None


def test_a_probe_goes_over_as_many_connections_as_it_says(wide):
    source, receiver = wide
    assert probe(source, receiver, 3 << 20, num_connections=3).get().seconds is not None
    assert connections_of(receiver) == [3]


def join(source, receiver, link_id: bytes) -> str:
    """What somebody who knows the secret is told that wants to become a part of that link."""
    sock, sockaddr = FrameSocket.to(receiver.listener.address)
    deadline = Deadline.after(PATIENCE_S, "answer")
    sock.connect(sockaddr, deadline)
    try:
        hello = make_hello(source, receiver)
        hello.joins = link_id
        caller = Caller(SECRET, Kind.LINK, hello)
        sock.send(LinkFrame(hello=hello), deadline)
        sock.send(LinkFrame(proof=caller.answer(sock.expect(deadline).challenge)), deadline)
        return sock.expect(deadline).welcome.error
    finally:
        sock.close()


def test_nobody_joins_what_is_no_link_or_another_sources(wide, make_node):
    source, receiver = wide
    other = make_node("prefill-1", record_bytes=RECORD_BYTES, num_blocks=NUM_BLOCKS)
    source.send(receiver, source.transfer(SOURCE_BLOCKS[:3]))
    source.events.next("on_sent")
    ((link_id, (_, connections)),) = receiver.listener._receiving.links._links.items()
    assert join(source, receiver, b"x" * 16) == "no such link to join"
    assert join(other, receiver, link_id) == "no such link to join"
    assert connections.num_connections == 1
    assert join(source, receiver, link_id) == ""
    assert connections.num_connections == 2


def test_an_offer_over_connections_that_are_not_there_is_malformed(wide):
    source, receiver = wide

    def lie(offer):
        offer.num_connections = 7

    with failpoints.armed("links.source.offer", lie):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:3]))
        source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    receiver.events.next("on_malformed")


def test_no_thread_and_no_file_stays_behind(make_node):
    def footprint() -> tuple[int, int]:
        gc.collect()
        return threading.active_count(), len(os.listdir("/proc/self/fd"))

    before = footprint()
    nodes = [ProbeNode(name, secret=SECRET, config=LinkConfig(transport="tcp")) for name in ("a", "b")]
    told = threading.Event()
    asked = ProbeTransfer(
        num_bytes=1 << 20,
        num_connections=4,
        give_up_at_s=time.monotonic() + PATIENCE_S,
        on_end=lambda outcome: told.set(),
    )
    nodes[0]._links.probe(nodes[1].target.link_address, nodes[1].target.holder, asked)
    assert told.wait(PATIENCE_S)
    for node in nodes:
        node.close()
    del node, nodes  # their memory goes with them
    assert footprint() == before


def test_where_each_connection_gets_only_so_much_a_probe_splits_the_link(make_node, monkeypatch):
    """The kernel paces every socket at 20 MB/s."""
    plain = frame_socket.size_buffers

    def pace(sock: socket.socket) -> None:
        plain(sock)
        sock.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, 20_000_000)

    monkeypatch.setattr(frame_socket, "size_buffers", pace)
    a, b = (ProbeNode(name, secret=SECRET, config=LinkConfig(transport="tcp")) for name in "ab")
    try:
        probed = a.probe(b.target, 5.0)
        assert (probed.transport, probed.error) == ("tcp", "")
        assert probed.num_connections > 1
        assert {link._lanes.num_connections for link in b._listener._links} == {probed.num_connections}
    finally:
        a.close()
        b.close()
