"""An instance measures its own links when a front asks, and tells what its transfers took."""

import asyncio
import queue

import pytest

from cluster.handshake import draw_secret
from cluster.instance.probing import Probing
from cluster.links.config import LinkConfig
from cluster.links.kv_region import KvRegion
from cluster.links.link_listener import LinkListener
from cluster.links.probe.node import ProbeTarget
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.links.shared_region import SharedRegion
from cluster.links.slot_table import SlotTable
from cluster.messages import Holder, Probe
from cluster.pb import instance_pb2 as pb
from tests.unit.instance.served import NUM_BLOCKS, RECORD_BYTES, SECRET, Speaker, front_of, served, serves
from tests.unit.links.factories import PATIENCE_S, Events

pytestmark = pytest.mark.unit


class Receiver:
    """Links end here, and there is nothing else."""

    def __init__(self, secret=SECRET) -> None:
        self.memory = SharedRegion.create(NUM_BLOCKS * RECORD_BYTES)
        region = KvRegion(self.memory.buffer, RECORD_BYTES, self.memory.path)
        self.holder, self.events = Holder("other", 3), Events()
        self.slots = SlotTable(self.events.on_quiet)
        self.listener = LinkListener(
            self.holder, region, self.slots, LinkConfig(), self.events, secret=secret, host="127.0.0.1"
        )

    def __enter__(self) -> "Receiver":
        return self

    def __exit__(self, *_: object) -> None:
        self.listener.close()
        self.memory.close()

    @property
    def target(self) -> ProbeTarget:
        return ProbeTarget(holder=self.holder, link_address=self.listener.address)


def ask(front: Speaker, number: int, target: ProbeTarget, budget_s: float = 0.1) -> None:
    holder = pb.Holder(instance=target.holder.instance, incarnation=target.holder.incarnation)
    front.say(
        pb.FrontMessage(
            probe=pb.Probe(number=number, target=holder, link_address=target.link_address, budget_s=budget_s)
        )
    )


async def answer(front: Speaker, number: int) -> pb.Probed:
    told = await front.hear(lambda message: message.probed.number == number)
    return told.probed


@pytest.mark.parametrize("transport", ["shm", "tcp"])
async def test_a_probe_is_answered_with_what_it_measured(transport: str) -> None:
    with Receiver() as other:
        async with served(links=LinkConfig(transport=transport)) as instance, front_of(instance) as front:
            ask(front, 7, other.target)
            probed = await answer(front, 7)
            assert (probed.target.instance, probed.transport, probed.error) == ("other", transport, "")
            assert probed.num_connections >= 1
            assert len({sample.num_bytes for sample in probed.samples}) > 1
            assert all(sample.seconds > 0.0 <= sample.ended_ago_s for sample in probed.samples)
            told = await front.hear(lambda message: bool(message.snapshot.links))
            (link,) = told.snapshot.links
            assert (link.target, link.num_transfers, link.num_connections) == ("other", 0, probed.num_connections)
            assert await serves(front)
        assert other.events.is_silent


async def test_a_link_that_cannot_be_made_is_an_answer() -> None:
    with Receiver(draw_secret()) as stranger:
        async with served() as instance, front_of(instance) as front:
            ask(front, 1, stranger.target)
            assert "not to be trusted" in (await answer(front, 1)).error
            assert await serves(front)


async def test_every_probe_is_answered_one_after_the_other() -> None:
    with Receiver() as other:
        async with served() as instance, front_of(instance) as front:
            for number in range(1, 6):
                ask(front, number, other.target, budget_s=0.02)
            answers = [(await answer(front, number)) for number in range(1, 6)]
            assert [probed.error for probed in answers] == [""] * 5


async def test_too_many_probes_are_turned_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cluster.instance.probing.MAX_WAITING", 0)
    with Receiver() as other:
        async with served() as instance, front_of(instance) as front:
            ask(front, 1, other.target)
            assert "0 other probes wait already" in (await answer(front, 1)).error


class Links:
    """Probes that end when the test says so."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ProbeTransfer]] = []

    def probe(self, link_address: str, receiver: Holder, probe: ProbeTransfer) -> None:
        self.asked.append((receiver.instance, probe))

    def num_connections(self, receiver: Holder) -> int:
        return 1

    def split(self, receiver: Holder, num_connections: int) -> None: ...


def test_probes_of_a_front_that_is_gone_are_not_begun() -> None:
    links, told = Links(), []
    probing = Probing(links, LinkConfig(), lambda front, probed: told.append((front, probed.number)))
    for front, number, target in (("gone", 1, "x"), ("gone", 2, "y"), ("here", 3, "z"), ("gone", 4, "x")):
        probing.start(front, Probe(number=number, target=Holder(target, 1), link_address="", budget_s=1.0))
    probing.drop("gone")
    for _ in range(2):
        links.asked[-1][1].on_end(ProbeOutcome(reason="it is over"))
    assert [target for target, _ in links.asked] == ["x", "z"]
    assert told == [("gone", 1), ("here", 3)]


async def test_a_front_that_leaves_leaves_no_probes_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    dropped: queue.SimpleQueue[str] = queue.SimpleQueue()
    monkeypatch.setattr(Probing, "drop", lambda _, front: dropped.put(front))
    async with served() as instance:
        async with front_of(instance) as front:
            assert await serves(front)
        await asyncio.to_thread(dropped.get, timeout=PATIENCE_S)


async def test_an_instance_stops_within_a_probe() -> None:
    with Receiver() as other:
        async with served() as instance, front_of(instance) as front:
            ask(front, 1, other.target, budget_s=30.0)
            await front.hear(lambda message: bool(message.snapshot.links))
