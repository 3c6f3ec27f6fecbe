"""Weights over a listener: what is asked for comes whole and checked, or as an error; strangers get nothing."""

from collections.abc import Iterator
from types import SimpleNamespace

import numpy as np
import pytest

from cluster import failpoints
from cluster.handshake import draw_secret
from cluster.links import weights_sender
from cluster.links.config import LinkConfig
from cluster.links.errors import LinkError
from cluster.links.link_listener import LinkListener
from cluster.links.weights import WeightsPart
from cluster.links.weights_receiver import WeightsReceiver
from cluster.links.weights_sender import WeightsSender
from cluster.messages import Holder

from .factories import SECRET, Events, Node

pytestmark = pytest.mark.unit

PART = WeightsPart(model="m", dtype="float32")
PIECE_BYTES = 1000


class FakeSource:
    def __init__(self) -> None:
        drawn = np.random.default_rng(0)
        self.part = PART
        self.arrays = {name: drawn.normal(size=shape).astype("f4") for name, shape in (("a", (50, 40)), ("b", (3,)))}
        self.arrays["none"] = np.zeros((0, 7), "f4")
        self.shapes = {name: array.shape for name, array in self.arrays.items()}

    def pieces(self, name: str, piece_bytes: int) -> Iterator[memoryview]:
        data = self.arrays[name].reshape(-1).view(np.uint8)
        for start in range(0, data.nbytes, piece_bytes):
            yield data[start : start + piece_bytes].copy().data


class Giver:
    def __init__(self, node: Node, **options) -> None:
        self.source, self.events, self.holder = FakeSource(), Events(), node.holder
        sender = WeightsSender(self.source, piece_bytes=PIECE_BYTES, timeout_s=5.0, **options)
        self.listener = LinkListener(
            node.holder,
            node.region,
            node.slots,
            LinkConfig(),
            self.events,
            secret=SECRET,
            host="127.0.0.1",
            weights=sender,
        )

    def call(self, part: WeightsPart = PART, holder: Holder | None = None, secret=SECRET) -> WeightsReceiver:
        asked = holder or self.holder
        return WeightsReceiver(self.listener.address, asked, part, caller="new", secret=secret, timeout_s=5.0)


@pytest.fixture
def giver(make_node) -> Iterator[Giver]:
    giver = Giver(make_node("old"))
    yield giver
    giver.listener.close()


def fetched(receiver: WeightsReceiver, source: FakeSource, name: str) -> bool:
    array = np.empty(source.shapes[name], "f4")
    receiver.fetch(name, array.shape, array.reshape(-1).view(np.uint8).data)
    return bool((array == source.arrays[name]).all())


def test_tensors_come_as_they_are_in_any_order_and_as_often_as_they_are_asked_for(giver):
    with giver.call() as receiver:
        assert receiver.shapes == giver.source.shapes
        assert all(fetched(receiver, giver.source, name) for name in ("b", "a", "none", "b"))
    assert giver.events.is_silent


def test_a_rate_is_kept_to_by_smaller_pieces(make_node):
    giver = Giver(make_node("old"), bytes_per_s=80_000)
    with giver.call() as receiver:
        assert fetched(receiver, giver.source, "a")
    giver.listener.close()


def test_a_rate_is_shared_by_the_ranks_of_an_instance(make_node, monkeypatch):
    rests: list[float] = []
    monkeypatch.setattr(weights_sender, "time", SimpleNamespace(monotonic=lambda: 0.0, sleep=rests.append))
    giver = Giver(make_node("old"), bytes_per_s=48, num_ranks=4)
    with giver.call() as receiver:
        assert fetched(receiver, giver.source, "b")
    assert rests == [1.0]  # for 12 bytes
    giver.listener.close()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        ({"model": "other"}, "model='other'"),
        ({"dtype": "bfloat16"}, "dtype='bfloat16'"),
        ({"num_ranks": 2}, "num_ranks=2"),
        ({"rank": 1, "num_ranks": 2}, "rank=1"),
    ],
)
def test_another_model_or_part_is_refused_with_both_named(giver, part, said):
    wanted = WeightsPart(**{"model": "m", "dtype": "float32", **part})
    with pytest.raises(LinkError, match="it has WeightsPart.*model='m'.*wanted is .*" + said):
        giver.call(wanted)


def test_another_life_than_the_one_that_is_meant_is_refused(giver):
    with pytest.raises(LinkError, match="this is old in incarnation 1; meant was"):
        giver.call(holder=Holder("old", 7))


def test_who_does_not_know_the_secret_gets_nothing(giver):
    with pytest.raises(LinkError, match="does not know the cluster's secret"):
        giver.call(secret=draw_secret())
    assert giver.events.next("on_unauthenticated") == ()


def test_a_listener_without_weights_gives_none(make_node):
    node = make_node("old")
    with pytest.raises(LinkError):
        WeightsReceiver(node.listener.address, node.holder, PART, caller="new", secret=SECRET, timeout_s=5.0)


def test_what_is_damaged_on_the_way_is_found_out(giver):
    with (
        giver.call() as receiver,
        failpoints.armed("links.weights.piece", failpoints.at(3, failpoints.flip)),
        pytest.raises(LinkError, match="wrong checksum of a"),
    ):
        fetched(receiver, giver.source, "a")


def test_a_stream_that_is_cut_in_the_middle_is_an_error(giver):
    with (
        giver.call() as receiver,
        failpoints.armed("links.weights.piece", failpoints.at(3, failpoints.cut)),
        pytest.raises(LinkError, match=r"the stream ends within a transfer|receiving"),
    ):
        fetched(receiver, giver.source, "a")


@pytest.mark.parametrize(("name", "shape"), [("c", (3,)), ("b", (4,))])
def test_what_is_not_there_or_of_another_size_is_not_asked_for(giver, name, shape):
    with giver.call() as receiver, pytest.raises(LinkError, match=f"{name} (is not there|has shape)"):
        receiver.fetch(name, shape, memoryview(bytearray(16)))


def test_one_gets_weights_at_a_time_and_the_next_one_after_it(giver):
    with giver.call() as receiver:
        with pytest.raises(LinkError, match="another instance is getting them"):
            giver.call()
        assert fetched(receiver, giver.source, "b")
    for link in list(giver.listener._links):
        link.join()
    with giver.call() as receiver:
        assert fetched(receiver, giver.source, "b")
