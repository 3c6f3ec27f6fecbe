"""Links between real processes: they die, freeze, come back, and everything ends in an event."""

import signal
from collections.abc import Callable, Iterator

import pytest

from .link_processes import NUM_BLOCKS, LinkProcess

pytestmark = pytest.mark.integration

SOURCE_BLOCKS = tuple(range(64))
TARGET_BLOCKS = tuple(reversed(range(100, 164)))


@pytest.fixture(params=["shm", "tcp"])
def transport(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def make_process() -> Iterator[Callable[..., LinkProcess]]:
    processes: list[LinkProcess] = []

    def make(name: str, **options) -> LinkProcess:
        processes.append(LinkProcess(name, **options))
        return processes[-1]

    yield make
    for process in processes:
        process.close()


@pytest.fixture
def make_receiver(make_process):
    def make(name: str, **options) -> LinkProcess:
        receiver = make_process(name, **options)
        receiver.call("reserve", "prefill-0", 1, TARGET_BLOCKS)
        return receiver

    return make


def test_blocks_arrive_in_another_process_as_they_were(make_process, make_receiver, transport):
    source, receiver = make_process("prefill-0", transport=transport), make_receiver("decode-0")
    source.send(receiver, SOURCE_BLOCKS)
    assert source.event() == ("sent", 1)
    assert receiver.event() == ("arrived", 1, 0, 64)
    assert receiver.call("holds", "prefill-0", SOURCE_BLOCKS, TARGET_BLOCKS)
    assert source.call("failures") == {"decode-0": (transport, 0)}


def test_many_transfers_both_ways_at_once(make_process, transport):
    names = ["a", "b", "c"]
    nodes = {name: make_process(name, transport=transport) for name in names}
    pairs = [(one, other) for one in names for other in names if one != other]
    # Half of each node's blocks are sent, from the other half each sender gets its share, in eight reservations.
    share = NUM_BLOCKS // 2 // 16
    plan = [
        (one, other, 100 * names.index(one) + part, slice(part * share, (part + 1) * share))
        for part in range(8)
        for one, other in pairs
    ]
    free = {name: iter(range(NUM_BLOCKS // 2, NUM_BLOCKS)) for name in names}
    targets = {}
    for one, other, reservation, _ in plan:
        targets[one, other, reservation] = tuple(next(free[other]) for _ in range(share))
        nodes[other].call("reserve", one, reservation, targets[one, other, reservation])
    for one, other, reservation, part in plan:
        nodes[one].send(nodes[other], range(NUM_BLOCKS // 2)[part], reservation)
    for name in names:
        told = [nodes[name].event()[0] for _ in range(32)]
        assert sorted(told) == ["arrived"] * 16 + ["sent"] * 16
    for one, other, reservation, part in plan:
        blocks = tuple(range(NUM_BLOCKS // 2)[part])
        assert nodes[other].call("holds", one, blocks, targets[one, other, reservation])


def test_a_damaged_block_is_reported_on_both_sides_and_arrives_on_neither(make_process, make_receiver, transport):
    source = make_process("prefill-0", transport=transport)
    receiver = make_receiver("decode-0", failpoints="links.receive.record=flip")
    source.send(receiver, SOURCE_BLOCKS)
    kind, reservation, reason = source.event()
    assert (kind, reservation) == ("failed", 1)
    assert "wrong checksum of block" in reason
    assert receiver.event() == ("damaged",)
    assert receiver.event() == ("bad", 1, reason)
    assert receiver.call("release", 1)


def test_an_earlier_life_of_the_receiver_is_refused_and_the_later_one_served(make_process, make_receiver, transport):
    source = make_process("prefill-0", transport=transport)
    receiver = make_receiver("decode-0", incarnation=2)
    source.call("send", receiver.address, type(receiver.holder)("decode-0", 1), SOURCE_BLOCKS, 1)
    assert "incarnation 2" in source.event()[2]
    source.send(receiver, SOURCE_BLOCKS)
    assert source.event() == ("sent", 1)


def test_a_killed_receiver_is_a_failed_send_and_its_next_life_gets_a_new_link(make_process, make_receiver, transport):
    source = make_process("prefill-0", transport=transport)
    first = make_receiver("decode-0", incarnation=1, hold="links.receive.record")
    source.send(first, SOURCE_BLOCKS)
    assert first.event() == ("held",)
    first.signal(signal.SIGKILL)
    assert source.event()[:2] == ("failed", 1)
    second = make_receiver("decode-0", incarnation=2)
    source.send(second, SOURCE_BLOCKS)
    assert source.event() == ("sent", 1)
    assert second.call("holds", "prefill-0", SOURCE_BLOCKS, TARGET_BLOCKS)


@pytest.mark.parametrize("stopped_during", ["set-up", "transfer"])
def test_a_frozen_receiver_is_a_failed_send_and_other_links_go_on(
    make_process, make_receiver, transport, stopped_during
):
    source = make_process("prefill-0", transport=transport, setup_timeout_s=1.5, transfer_timeout_s=1.5)
    frozen, healthy = make_receiver("decode-0"), make_receiver("decode-1")
    if stopped_during == "transfer":
        frozen.call("reserve", "prefill-0", 2, (0,))
        source.send(frozen, (0,), reservation=2)
        assert source.event() == ("sent", 2)
    frozen.signal(signal.SIGSTOP)
    source.send(frozen, SOURCE_BLOCKS)
    source.send(healthy, SOURCE_BLOCKS)
    assert source.event() == ("sent", 1)
    kind, reservation, reason = source.event()
    assert (kind, reservation) == ("failed", 1)
    assert "within 1.5 s" in reason
    reached = "" if stopped_during == "set-up" else transport
    assert source.call("failures") == {"decode-0": (reached, 1), "decode-1": (transport, 0)}
    assert healthy.call("holds", "prefill-0", SOURCE_BLOCKS, TARGET_BLOCKS)


def test_a_receiver_that_thaws_finds_the_transfer_dead_and_serves_the_next_one(make_process, make_receiver, transport):
    source = make_process("prefill-0", transport=transport, setup_timeout_s=1.5, transfer_timeout_s=1.5)
    receiver = make_receiver("decode-0")
    receiver.call("reserve", "prefill-0", 2, (0,))
    source.send(receiver, (0,), reservation=2)
    assert source.event() == ("sent", 2)
    assert receiver.event() == ("arrived", 2, 0, 1)
    receiver.signal(signal.SIGSTOP)
    source.send(receiver, SOURCE_BLOCKS)
    assert source.event()[0] == "failed"
    receiver.signal(signal.SIGCONT)
    # What the frozen receiver still finds of the dead link: over tcp a Post without an answer, over shm valid blocks.
    assert receiver.event()[0] == ("bad" if transport == "tcp" else "arrived")
    receiver.call("reserve", "prefill-0", 3, tuple(range(1, 65)))
    source.send(receiver, SOURCE_BLOCKS, reservation=3)
    assert source.event() == ("sent", 3)
    assert receiver.call("holds", "prefill-0", SOURCE_BLOCKS, tuple(range(1, 65)))


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_source_that_dies_or_freezes_in_the_middle_leaves_no_block_posted(make_process, make_receiver, how):
    source = make_process("prefill-0", transport="tcp", hold="links.source.batch")
    receiver = make_receiver("decode-0", transfer_timeout_s=0.5)
    other = make_process("prefill-1")
    source.send(receiver, SOURCE_BLOCKS)
    assert source.event() == ("held",)
    source.signal(how)
    assert receiver.event()[:2] == ("bad", 1)
    assert receiver.call("release", 1)
    receiver.call("reserve", "prefill-1", 2, TARGET_BLOCKS)
    other.send(receiver, SOURCE_BLOCKS, reservation=2)
    assert other.event() == ("sent", 2)
    assert receiver.call("holds", "prefill-1", SOURCE_BLOCKS, TARGET_BLOCKS)


def test_closing_a_reservation_under_a_posted_transfer_waits_for_the_link(make_process, make_receiver):
    source = make_process("prefill-0", transport="tcp", hold="links.source.batch")
    receiver = make_receiver("decode-0")
    source.send(receiver, SOURCE_BLOCKS)
    assert source.event() == ("held",)
    assert not receiver.call("release", 1)
    source.signal(signal.SIGKILL)
    assert receiver.event() == ("quiet", 1)
