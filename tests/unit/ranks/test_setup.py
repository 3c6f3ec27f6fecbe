import pytest

from cluster.instance.config import WeightsPeer
from cluster.pb.ranks_pb2 import RankHello
from cluster.ranks.setup import RankSetup

pytestmark = pytest.mark.unit


def test_what_a_rank_is_told_arrives_as_it_was_said():
    peers = tuple(WeightsPeer(name=name, incarnation=1 << 60, link_address="a:1,b:2") for name in ("x", "y"))
    setup = RankSetup(
        world_size=2,
        model_path="/model",
        dtype="bfloat16",
        block_size=8,
        max_model_len=1 << 20,
        rank=1,
        instance="p-0",
        weights_peers=peers,
    )
    assert RankSetup.from_hello(RankHello.FromString(setup.to_hello().SerializeToString())) == setup
