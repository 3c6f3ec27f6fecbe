import os
from contextlib import closing

import pytest

from cluster.handshake import draw_secret
from cluster.ranks import load
from cluster.ranks.follower import Follower
from cluster.ranks.greeting import call
from cluster.ranks.setup import RankSetup

pytestmark = pytest.mark.unit

SECRET = draw_secret()


def test_threads_of_a_rank_sleep_while_they_wait_and_a_user_may_say_otherwise(monkeypatch):
    """They read it once, as torch is loaded."""
    setup, found = RankSetup(world_size=2, model_path="/model", dtype="float32", block_size=8, rank=1), []

    def load_follower(*arguments: object) -> None:
        found.append(os.environ["OMP_WAIT_POLICY"])
        raise OSError("no weights")

    monkeypatch.setattr(load, "load_follower", load_follower)
    for said in ("", "ACTIVE"):
        monkeypatch.setenv("OMP_WAIT_POLICY", said)
        if not said:
            monkeypatch.delenv("OMP_WAIT_POLICY")
        with (
            closing(Follower(SECRET, "127.0.0.1")) as follower,
            closing(call(follower.address, "hello", setup.to_hello(), SECRET)) as channel,
        ):
            with pytest.raises(OSError, match="no weights"):
                follower.run(end_process=lambda code: None)
            with pytest.raises(ConnectionError, match="OSError: no weights"):
                channel.hear("ready")
    assert found == ["PASSIVE", "ACTIVE"]
