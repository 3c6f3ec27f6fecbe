"""Who does not know the cluster's secret gets no link, in either direction, and is counted."""

import socket
from contextlib import contextmanager

import pytest

from cluster.handshake import Called, Caller
from cluster.links.deadline import Deadline
from cluster.links.frame_socket import FrameSocket
from cluster.links.host_identity import host_identity
from cluster.pb.instance_pb2 import Challenge, Proof
from cluster.pb.links_pb2 import LinkFrame, LinkHello, Offer
from cluster.secret import SECRET_BYTES, ClusterSecret, Kind

from .factories import EPOCH, PATIENCE_S, SECRET, SOURCE_BLOCKS, TARGET_BLOCKS

pytestmark = pytest.mark.unit

ANOTHER = ClusterSecret(b"x" * SECRET_BYTES)


@contextmanager
def connected(node):
    """A socket to a node's listener, as a stranger opens it, and a deadline for all that is said on it."""
    sock, sockaddr = FrameSocket.to(node.listener.address)
    deadline = Deadline.after(PATIENCE_S, "answer")
    sock.connect(sockaddr, deadline)
    try:
        yield sock, deadline
    finally:
        sock.close()


def make_hello(source, receiver) -> LinkHello:
    """What the source would say, which is no secret."""
    return LinkHello(
        source={"instance": source.holder.instance, "incarnation": source.holder.incarnation},
        receiver={"instance": receiver.holder.instance, "incarnation": receiver.holder.incarnation},
        host=host_identity(),
        region_path=source.region.path,
        region_bytes=source.region.num_bytes,
        record_bytes=source.region.record_bytes,
        transport="auto",
    )


def say(sock, deadline, **frame) -> None:
    sock.send(LinkFrame(**frame), deadline)


def test_a_source_with_another_secret_is_sent_away_and_proves_nothing(make_node):
    source, receiver = make_node("prefill-0", secret=ANOTHER), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    before = receiver.content(TARGET_BLOCKS)
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    assert "decode-0 is not to be trusted" in source.events.next("on_send_failed")[1]
    receiver.events.next("on_unauthenticated")
    assert receiver.content(TARGET_BLOCKS) == before
    assert receiver.events.is_silent


@pytest.mark.parametrize("proof", [b"", b"\0" * 32, b"x"])
def test_a_stranger_who_knows_all_but_the_secret_gets_no_link(make_node, proof):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    with connected(receiver) as (sock, deadline):
        say(sock, deadline, hello=make_hello(source, receiver))
        assert sock.expect(deadline).challenge.proof
        say(sock, deadline, proof=Proof(proof=proof))
        assert "no proof" in sock.expect(deadline).welcome.error
        assert sock.receive(deadline) is None
    receiver.events.next("on_unauthenticated")
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")


def test_an_offer_instead_of_a_proof_moves_nothing(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
    before = receiver.content(TARGET_BLOCKS)
    with connected(receiver) as (sock, deadline):
        say(sock, deadline, hello=make_hello(source, receiver))
        sock.expect(deadline)
        say(sock, deadline, offer=Offer(slot=1, reservation=1, epoch={"term": 1, "n": 1}, block_ids=SOURCE_BLOCKS))
        sock.expect(deadline)
    receiver.events.next("on_unauthenticated")
    assert receiver.content(TARGET_BLOCKS) == before
    assert receiver.events.is_silent


def test_a_greeting_that_was_overheard_cannot_be_played_again(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    hello = make_hello(source, receiver)
    with connected(receiver) as (sock, deadline):
        caller = Caller(SECRET, Kind.LINK, hello)
        say(sock, deadline, hello=hello)
        proof = caller.answer(sock.expect(deadline).challenge)
        say(sock, deadline, proof=proof)
        assert sock.expect(deadline).welcome.transport == "shm"
    with connected(receiver) as (sock, deadline):
        say(sock, deadline, hello=hello)
        sock.expect(deadline)
        say(sock, deadline, proof=proof)
        assert "no proof" in sock.expect(deadline).welcome.error
    receiver.events.next("on_unauthenticated")


@pytest.mark.parametrize("challenge", [Challenge(), Challenge(nonce=b"n" * 32, proof=b"p" * 32)])
def test_nothing_is_sent_to_a_listener_that_cannot_prove_itself(make_node, challenge):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        source.links.send(address, receiver.holder, source.transfer(SOURCE_BLOCKS))
        accepted, _ = server.accept()
        impostor, deadline = FrameSocket(accepted), Deadline.after(PATIENCE_S, "hello")
        impostor.expect(deadline)
        say(impostor, deadline, challenge=challenge)
        assert impostor.receive(deadline) is None
        impostor.close()
    assert "not to be trusted" in source.events.next("on_send_failed")[1]


def test_a_challenge_of_another_kind_of_stream_is_no_proof(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        source.links.send(address, receiver.holder, source.transfer(SOURCE_BLOCKS))
        accepted, _ = server.accept()
        impostor, deadline = FrameSocket(accepted), Deadline.after(PATIENCE_S, "hello")
        hello = impostor.expect(deadline).hello
        say(impostor, deadline, challenge=Called(SECRET, Kind.SERVE, hello).challenge())
        assert impostor.receive(deadline) is None
        impostor.close()
    assert "not to be trusted" in source.events.next("on_send_failed")[1]


def test_nonsense_after_the_proof_ends_the_link_and_is_counted(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    hello = make_hello(source, receiver)
    with connected(receiver) as (sock, deadline):
        caller = Caller(SECRET, Kind.LINK, hello)
        say(sock, deadline, hello=hello)
        say(sock, deadline, proof=caller.answer(sock.expect(deadline).challenge))
        sock.expect(deadline)
        say(sock, deadline, hello=hello)
        assert sock.receive(deadline) is None
    receiver.events.next("on_malformed")


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\x03\x00\x00\x00\xff\xff\xff", b"\x00\x00\x00\x00"])
def test_whoever_speaks_something_else_is_counted_too(make_node, said):
    receiver = make_node("decode-0")
    host, port = receiver.listener.address.split(":")
    with socket.create_connection((host, int(port))) as stranger:
        stranger.settimeout(PATIENCE_S)
        stranger.sendall(said)
        stranger.shutdown(socket.SHUT_WR)
        while stranger.recv(4096):
            pass
    receiver.events.next("on_unauthenticated")
