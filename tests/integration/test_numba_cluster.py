"""Instances whose models are large enough for Numba's kernels, in real processes."""

from pathlib import Path

import pytest

from cluster.model.config import ModelConfig
from cluster.model.cpu_steps import LEAST_PARAMETERS
from cluster.model.random_checkpoint import make_random_checkpoint
from tests.integration.local_cluster import LocalCluster
from tests.integration.streams import Stream, disturbed, owner, undisturbed

pytestmark = pytest.mark.integration


async def test_a_request_moves_while_kernels_decode_it_alone_and_beside_others(tmp_path: Path) -> None:
    """Large for its vocabulary alone."""
    path = make_random_checkpoint(tmp_path, vocab_size=80_000)
    assert ModelConfig.from_checkpoint(path).num_parameters >= LEAST_PARAMETERS

    async def move_the_first(streams: list[Stream]) -> None:
        home = await owner(cluster, "r0")
        away = {"decode-0": "decode-1", "decode-1": "decode-0"}[home]
        moved = await cluster.client.migrate("r0", away)
        assert (moved.source, moved.target) == (home, away)

    engine = {"kv_cache_memory_bytes": 8 << 20, "num_threads": 1}
    async with LocalCluster(num_decode=2, model_path=path, engine=engine) as cluster:
        for num_streams in (1, 4):
            expected = await undisturbed(cluster, num_streams)
            assert await disturbed(cluster, num_streams, move_the_first) == expected
            await cluster.until_empty()
