import errno
import gc
import os
import socket
import threading
from pathlib import Path

import numpy as np
import pytest

from cluster import failpoints
from cluster.links import link_listener, outgoing_link
from cluster.links.incoming_link import IncomingLink
from cluster.messages import Holder

from .factories import EPOCH, PATIENCE_S, SOURCE_BLOCKS, TARGET_BLOCKS, Gate
from .test_probes import probe

pytestmark = pytest.mark.unit


def test_a_peer_that_does_not_listen_is_a_failed_send(make_node):
    source = make_node("prefill-0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
    source.links.send(address, Holder("decode-0", 1), source.transfer(SOURCE_BLOCKS))
    assert "Connection refused" in source.events.next("on_send_failed")[1]


def test_a_name_that_does_not_resolve_is_a_failed_send(make_node):
    source = make_node("prefill-0")
    source.links.send("no-such-host.invalid:1", Holder("decode-0", 1), source.transfer(SOURCE_BLOCKS))
    assert "no-such-host.invalid" in source.events.next("on_send_failed")[1]


def out_of(error):
    def fail(*arguments, **options):
        raise error

    return fail


NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files")
NO_THREAD = RuntimeError("can't start new thread")


@pytest.mark.parametrize(
    ("owner", "name", "error"),
    [(os, "eventfd", NO_DESCRIPTOR), (threading.Thread, "start", NO_THREAD), (socket, "socket", NO_DESCRIPTOR)],
)
def test_a_process_without_descriptors_or_threads_left_fails_the_send_and_goes_on(
    pair, monkeypatch, owner, name, error
):
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS, reservation=2))  # no thread starts elsewhere meanwhile
    source.events.next("on_send_failed")
    receiver.events.next("on_bad")
    num_descriptors = len(os.listdir("/proc/self/fd"))
    with monkeypatch.context() as patch:
        patch.setattr(owner, name, out_of(error))
        source.links.send("127.0.0.1:1", Holder("decode-1", 1), source.transfer(SOURCE_BLOCKS))
        assert str(error) in source.events.next("on_send_failed")[1]
    for link in list(source.links._links.values())[1:]:
        link.join()
    assert len(os.listdir("/proc/self/fd")) == num_descriptors
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")


def test_a_receiver_without_threads_left_turns_a_link_away_and_takes_the_next(pair, monkeypatch):
    source, receiver = pair
    monkeypatch.setattr(link_listener, "ACCEPT_RETRY_S", 0.0)
    with monkeypatch.context() as patch:
        patch.setattr(IncomingLink, "start", out_of(NO_THREAD))
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_send_failed")
    assert receiver.listener.num_links == 0
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")


def test_a_peer_that_accepts_and_says_nothing_is_a_failed_send(make_node):
    source = make_node("prefill-0", setup_timeout_s=0.05)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        source.links.send(address, Holder("decode-0", 1), source.transfer(SOURCE_BLOCKS))
        assert "within 0.05 s" in source.events.next("on_send_failed")[1]


def test_a_stalled_receiver_fails_this_link_with_its_queue_and_no_other(make_node, transport):
    source = make_node("prefill-0", transport=transport, transfer_timeout_s=1.0)
    stalled, healthy = make_node("decode-0"), make_node("decode-1")
    gate = Gate()

    def stall_one(record):
        if np.shares_memory(record, stalled.region.records):
            gate()

    for node in (stalled, healthy):
        node.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    with failpoints.armed("links.receive.record", stall_one):
        first, second = source.transfer(SOURCE_BLOCKS), source.transfer(SOURCE_BLOCKS)
        source.send(stalled, first)
        assert gate.reached.wait(PATIENCE_S)
        source.send(stalled, second)
        source.send(healthy, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_sent")
        for transfer in (first, second):
            failed, reason = source.events.next("on_send_failed")
            assert failed is transfer
            assert "no answer to an offer within 1 s" in reason
        gate.opened.set()
    assert healthy.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
    assert {status.target: status.num_failures for status in source.links.status()} == {"decode-0": 2, "decode-1": 0}


def test_a_full_queue_refuses(pair, monkeypatch):
    monkeypatch.setattr(outgoing_link, "MAX_QUEUED_TRANSFERS", 1)
    source, receiver = pair
    gate = Gate()
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:1]))
        assert gate.reached.wait(PATIENCE_S)
        source.send(receiver, source.transfer(SOURCE_BLOCKS[1:2], first_block=1))
        source.send(receiver, source.transfer(SOURCE_BLOCKS[2:3], first_block=2))
        failed, reason = source.events.next("on_send_failed")
        assert (failed.first_block, reason) == (2, "1 transfers are queued on this link")
        gate.opened.set()
    source.events.next("on_sent")
    source.events.next("on_sent")


def test_a_link_whose_idle_peer_hung_up_is_made_again(make_node, transport):
    source, receiver = make_node("prefill-0", transport=transport), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.send(receiver, source.transfer(SOURCE_BLOCKS[:2]))
    source.events.next("on_sent")
    (link,) = source.links._links.values()
    for incoming in list(receiver.listener._links):
        incoming.close()
    link.join()
    source.send(receiver, source.transfer(SOURCE_BLOCKS[2:], first_block=2))
    source.events.next("on_sent")
    assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)


def test_a_later_life_of_the_receiver_gets_a_link_of_its_own(make_node, transport):
    source = make_node("prefill-0", transport=transport)
    for incarnation in (1, 2):
        receiver = make_node("decode-0", incarnation=incarnation)
        receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.events.next("on_sent")
    assert [(status.target, status.num_transfers) for status in source.links.status()] == [("decode-0", 2)]


def test_a_later_life_of_the_receiver_is_measured_anew(make_node):
    """It may be on another node. What the link has done is counted on."""
    source = make_node("prefill-0", transport="tcp")
    earlier, later = (make_node("decode-0", incarnation=incarnation) for incarnation in (1, 2))
    earlier.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.links.split(earlier.holder, 4)
    source.send(earlier, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    assert source.links.num_connections(later.holder) == 1
    assert probe(source, later, 4096, counts=False).get().seconds is not None
    source.links.split(earlier.holder, 4)  # its probe ends too late to matter
    (status,) = source.links.status()
    assert (status.beta_bytes_per_s, status.num_connections, status.num_transfers) == (0.0, 1, 1)


def test_closing_the_source_fails_what_is_under_way_and_queued(pair):
    source, receiver = pair
    gate = Gate()
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        assert gate.reached.wait(PATIENCE_S)
        source.send(receiver, source.transfer(SOURCE_BLOCKS))
        source.links.close()
        gate.opened.set()
    for _ in range(2):
        assert source.events.next("on_send_failed")[1] == "links are closed"
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert source.events.next("on_send_failed")[1] == "links are closed"


def test_closing_the_receiver_ends_the_links_to_it(pair):
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    receiver.listener.close()
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")


def test_status_names_the_transport_and_its_measured_speed(pair, transport):
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    source.events.next("on_send_failed")
    (status,) = source.links.status()
    assert (status.source, status.target, status.transport) == ("prefill-0", "decode-0", transport)
    assert (status.num_transfers, status.num_bytes, status.num_failures) == (1, 5 * 4096, 1)
    assert status.beta_bytes_per_s > 0
    assert "arrived already" in status.last_failure


def footprint() -> tuple[int, int, int]:
    """(threads, open files, mapped regions) of this process."""
    gc.collect()
    mapped = Path("/proc/self/maps").read_text().count("memfd:baton-kv")
    return threading.active_count(), len(os.listdir("/proc/self/fd")), mapped


def test_closing_leaves_no_thread_no_descriptor_and_no_mapping(make_node, transport):
    before = footprint()
    source = make_node("prefill-0", transport=transport, transfer_timeout_s=1.0)
    receivers = [make_node(f"decode-{index}") for index in range(3)]
    for receiver in receivers:
        receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.send(receivers[0], source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    with failpoints.armed("links.receive.record", failpoints.cut):
        source.send(receivers[1], source.transfer(SOURCE_BLOCKS))
        source.events.next("on_send_failed")
    source.send(receivers[2], source.transfer(SOURCE_BLOCKS, reservation=2))
    source.events.next("on_send_failed")
    assert footprint() > before
    for node in (source, *receivers):
        node.close()
        vars(node).clear()  # the fixture still holds the node, and with it the memory
        node.close = lambda: None
    assert footprint() == before
