"""Probes over real links: they take the way of blocks, behind all of them, and come to nobody's memory."""

import threading
import time
from typing import Any

import pytest

from cluster import failpoints
from cluster.handshake import Caller
from cluster.links.device_region import DeviceRegion
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.messages import Holder
from cluster.pb.links_pb2 import ProbeOffer
from cluster.secret import Kind

from .factories import EPOCH, PATIENCE_S, SECRET, SOURCE_BLOCKS, TARGET_BLOCKS, Gate, Node
from .fake_nccl import make_world
from .nccl_nodes import GpuNode, LinkConfig
from .test_links_strangers import connected, make_hello, say

pytestmark = pytest.mark.unit


class Outcome:
    """What a probe's `on_end` was told, once."""

    def __init__(self) -> None:
        self._told = threading.Event()
        self._outcomes: list[ProbeOutcome] = []

    def __call__(self, outcome: ProbeOutcome) -> None:
        self._outcomes.append(outcome)
        self._told.set()

    def get(self) -> ProbeOutcome:
        assert self._told.wait(PATIENCE_S)
        (outcome,) = self._outcomes
        return outcome


def probe(source: Node, receiver: Node, num_bytes: int, *, in_s: float = PATIENCE_S, **options: Any) -> Outcome:
    outcome = Outcome()
    asked = ProbeTransfer(num_bytes=num_bytes, give_up_at_s=time.monotonic() + in_s, on_end=outcome, **options)
    source.links.probe(receiver.listener.address, receiver.holder, asked)
    return outcome


def memory(node: Node) -> bytes:
    return b"".join(node.content(tuple(range(16))))


@pytest.mark.parametrize("num_bytes", [1, 4096, 10_000, 5 << 20])
def test_a_probe_is_timed_and_comes_to_no_block(pair, transport, num_bytes):
    source, receiver = pair
    before = memory(source), memory(receiver)
    start_s = time.monotonic()
    outcome = probe(source, receiver, num_bytes).get()
    assert (outcome.transport, outcome.reason) == (transport, "")
    assert outcome.seconds is not None
    assert 0.0 < outcome.seconds <= time.monotonic() - start_s
    assert (memory(source), memory(receiver)) == before
    assert source.events.is_silent
    assert receiver.events.is_silent


@pytest.mark.parametrize("checksum", [True, False])
@pytest.mark.parametrize("num_bytes", [1, 4096, 20 << 20])
def test_a_probe_goes_through_staging_between_gpus(checksum, num_bytes):
    with make_world() as world:
        source, receiver = (GpuNode(world, name, LinkConfig(checksum=checksum)) for name in ("prefill-0", "decode-0"))
        try:
            before = memory(source), memory(receiver)
            outcome = probe(source, receiver, num_bytes).get()
            assert (outcome.transport, outcome.reason) == ("nccl", "")
            assert (memory(source), memory(receiver)) == before
            assert sum(world.delivered) == num_bytes
            receiver.slots.open(1, source.holder, EPOCH, TARGET_BLOCKS, first_block=0)
            source.send(receiver, source.transfer(SOURCE_BLOCKS))
            source.events.next("on_sent")
            assert receiver.content(TARGET_BLOCKS) == source.content(SOURCE_BLOCKS)
            assert isinstance(receiver.region, DeviceRegion)
            assert receiver.region.channels.num_channels == 1
        finally:
            source.close()
            receiver.close()


def test_a_gpu_that_is_lost_within_a_probe_fails_it_and_the_link():
    with make_world() as world:
        source, receiver = (GpuNode(world, name, LinkConfig(transfer_timeout_s=0.5)) for name in ("p", "d"))
        try:
            probe(source, receiver, 4096).get()
            with world.changed:
                world.still.add(receiver.cupy)
            assert probe(source, receiver, 4096).get().reason
            world.heal()
            assert probe(source, receiver, 4096).get().seconds is not None
        finally:
            source.close()
            receiver.close()


def test_blocks_go_first(pair):
    source, receiver = pair
    gate, order = Gate(), []
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:1]))
        assert gate.reached.wait(PATIENCE_S)
        outcome = Outcome()

        def on_end(told: ProbeOutcome) -> None:
            order.append(source.links.status()[0].num_transfers)
            outcome(told)

        asked = ProbeTransfer(num_bytes=4096, give_up_at_s=time.monotonic() + PATIENCE_S, on_end=on_end)
        source.links.probe(receiver.listener.address, receiver.holder, asked)
        for index in (1, 2):
            source.send(receiver, source.transfer(SOURCE_BLOCKS[index : index + 1], first_block=index))
        gate.opened.set()
        outcome.get()
    assert order == [3]


def test_a_probe_for_which_there_is_no_time_ends_as_late(pair):
    source, receiver = pair
    gate = Gate()
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:1]))
        assert gate.reached.wait(PATIENCE_S)
        late = probe(source, receiver, 4096, in_s=0.0)
        gate.opened.set()
        outcome = late.get()
    assert (outcome.is_late, outcome.seconds) == (True, None)
    source.events.next("on_sent")
    assert probe(source, receiver, 4096).get().seconds is not None


def test_a_probe_counts_for_the_links_speed_and_is_no_transfer(pair):
    source, receiver = pair
    probe(source, receiver, 1 << 20, counts=False).get()
    assert source.links.status()[0].beta_bytes_per_s == 0.0
    probe(source, receiver, 1 << 20).get()
    (status,) = source.links.status()
    assert status.beta_bytes_per_s > 0.0
    assert (status.num_transfers, status.num_bytes, status.num_failures) == (0, 0, 0)
    assert source.links.take_samples() == ()


def test_nobody_there_is_a_failed_probe_and_no_failed_transfer(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    receiver.listener.close()
    outcome = probe(source, receiver, 4096).get()
    assert "Connection refused" in outcome.reason
    assert source.links.status()[0].num_failures == 0
    assert source.events.is_silent


def test_somebody_else_there_is_a_failed_probe(make_node):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    receiver.holder = Holder("decode-1", 1)
    assert "this is decode-0" in probe(source, receiver, 4096).get().reason


def test_a_receiver_that_stalls_within_a_probe_fails_it_by_its_deadline(make_node, monkeypatch):
    source, receiver = make_node("prefill-0", transport="tcp", transfer_timeout_s=0.2), make_node("decode-0")
    gate, scratch = Gate(), receiver.listener._receiving.scratch
    pieces = scratch.pieces
    monkeypatch.setattr(scratch, "pieces", lambda *asked: gate() or pieces(*asked))
    assert "within 0.2 s" in probe(source, receiver, 4096).get().reason
    gate.opened.set()


def test_closed_links_probe_nothing(pair):
    source, receiver = pair
    source.links.close()
    assert probe(source, receiver, 4096).get().reason == "links are closed"


def test_closing_ends_a_probe_that_waits(pair):
    source, receiver = pair
    gate = Gate()
    with failpoints.armed("links.receive.record", gate):
        source.send(receiver, source.transfer(SOURCE_BLOCKS[:1]))
        assert gate.reached.wait(PATIENCE_S)
        waiting = probe(source, receiver, 4096)
        source.links.close()
        gate.opened.set()
    assert waiting.get().reason == "links are closed"


@pytest.mark.parametrize("nonsense", [{"num_bytes": 0}, {"num_bytes": 1 << 40}, {"slot": 0}, {"num_connections": 3}])
def test_a_probe_that_makes_no_sense_ends_its_link_and_is_counted(make_node, nonsense):
    source, receiver = make_node("prefill-0"), make_node("decode-0")
    with connected(receiver) as (sock, deadline):
        hello = make_hello(source, receiver)
        hello.transport = "tcp"
        caller = Caller(SECRET, Kind.LINK, hello)
        say(sock, deadline, hello=hello)
        say(sock, deadline, proof=caller.answer(sock.expect(deadline).challenge))
        assert sock.expect(deadline).welcome.transport == "tcp"
        say(sock, deadline, probe=ProbeOffer(**{"slot": 1, "num_bytes": 4096, **nonsense}))
        assert receiver.events.next("on_malformed") == ()
    assert receiver.events.is_silent


def test_transfers_of_blocks_are_samples_once(pair, transport):
    source, receiver = pair
    start_s = time.monotonic()
    source.send(receiver, source.transfer(SOURCE_BLOCKS))
    source.events.next("on_sent")
    (sample,) = source.links.take_samples()
    assert (sample.target, sample.transport) == (receiver.holder, transport)
    assert sample.num_bytes == 5 * source.region.record_bytes
    assert start_s <= sample.ended_s - sample.seconds < sample.ended_s <= time.monotonic()
    assert source.links.take_samples() == ()


def test_a_refused_transfer_is_no_sample(pair):
    source, receiver = pair
    source.send(receiver, source.transfer(SOURCE_BLOCKS, reservation=2))
    source.events.next("on_send_failed")
    assert source.links.take_samples() == ()
