import socket
from dataclasses import replace

import pytest

from cluster.links import source_connection
from cluster.links.config import LinkConfig
from cluster.links.record_shape import RecordShape
from cluster.messages import Holder

from .factories import EPOCH, PATIENCE_S, RECORD_BYTES, SOURCE_BLOCKS, TARGET_BLOCKS, Node

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("holder", "said"),
    [(Holder("decode-0", 1), "in incarnation 2"), (Holder("decode-1", 2), "this is decode-0")],
)
def test_a_link_to_somebody_else_or_to_an_earlier_life_is_refused(make_node, holder, said):
    source, receiver = make_node("prefill-0"), make_node("decode-0", incarnation=2)
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    source.links.send(receiver.listener.address, holder, source.transfer(SOURCE_BLOCKS))
    assert said in source.events.next("on_send_failed")[1]
    assert receiver.events.is_silent


def test_a_link_between_unequal_records_is_refused(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0", record_bytes=8192)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "records of 4096 bytes do not fit 8192" in source.events.next("on_send_failed")[1]


def test_kv_in_another_number_format_is_refused_with_both_named_though_records_are_as_large():
    shape = RecordShape(num_rows=4, num_heads=2, head_bytes=512)
    source, receiver = (
        Node(name, 1, 16, RECORD_BYTES, LinkConfig(), shape=replace(shape, dtype=dtype))
        for name, dtype in (("prefill-0", "float32"), ("decode-0", "bfloat16"))
    )
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "KV of prefill-0 is in float32, of decode-0 in bfloat16" in source.events.next("on_send_failed")[1]
    source.close()
    receiver.close()


def test_two_configurations_that_insist_on_different_transports_make_no_link(make_node):
    source, receiver = make_node("prefill-0", transport="shm"), make_node("decode-0", transport="tcp")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "insists on shm, the receiver on tcp" in source.events.next("on_send_failed")[1]


def test_shared_memory_is_chosen_on_one_host(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    assert source.links.status()[0].transport == "shm"


def test_tcp_is_chosen_between_hosts(make_node, monkeypatch):
    monkeypatch.setattr(source_connection, "host_identity", lambda: "elsewhere")
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    status = source.links.status()[0]
    assert (status.transport, status.note) == ("tcp", "")


def test_a_region_that_cannot_be_mapped_means_tcp_and_is_said(make_node, caplog):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    source.region.path = "/proc/1/fd/99999"
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_send_failed")
    status = source.links.status()[0]
    assert status.transport == "tcp"
    assert "no shm" in status.note
    assert "tcp instead of shm" in caplog.text


def test_a_region_that_cannot_be_mapped_is_no_link_where_shm_is_asked_for(make_node):
    source, receiver = make_node("prefill-0", transport="shm"), make_node("decode-0")
    source.region.path = "/proc/1/fd/99999"
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "no shm link" in source.events.next("on_send_failed")[1]


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x03\x00\x00\x00\xff\xff\xff", b"\x00\x00\x00\x00", b""])
def test_a_stranger_at_the_door_is_sent_away(pair, said):
    source, receiver = pair
    host, port = receiver.listener.address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.settimeout(PATIENCE_S)
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")


def test_what_cannot_be_a_frame_is_not_waited_for(make_node, caplog):
    receiver = make_node("decode-0", setup_timeout_s=PATIENCE_S)
    host, port = receiver.listener.address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.settimeout(PATIENCE_S / 2)
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert stranger.recv(1) == b""
    receiver.close()
    assert "bytes: not a link" in caplog.text


def test_who_says_nothing_is_sent_away_when_the_setup_time_is_over(make_node):
    receiver = make_node("decode-0", setup_timeout_s=0.05)
    host, port = receiver.listener.address.split(":")
    with socket.create_connection((host, int(port))) as silent:
        silent.settimeout(PATIENCE_S)
        assert silent.recv(1) == b""
