"""The brain of a cluster under many seeds: exactly-once tokens, the right ones, and nothing left behind."""

import pytest

from cluster.engine.sequence import FinishReason
from router.ledger import Failure
from tests.simulated.world import World

pytestmark = pytest.mark.simulated


def run(world: World, num_requests: int, *, aborts: bool = False, stream_losses: bool = False) -> None:
    for index in range(num_requests):
        length, max_tokens = world.random.randint(1, 30), world.random.randint(1, 12)
        world.ask(f"r{index}", length, max_tokens, shared_prefix=world.random.random() < 0.5)
        for _ in range(world.random.randint(0, 30)):
            world.turn()
        if aborts and world.random.random() < 0.3:
            world.abort(f"r{world.random.randint(0, index)}")
        if stream_losses and world.random.random() < 0.3:
            world.lose_peer_stream()
    world.settle()
    world.assert_tokens_exact()
    world.assert_nothing_left()


@pytest.mark.parametrize("seed", range(40))
def test_every_request_gets_all_its_tokens_once(seed: int) -> None:
    world = World(seed)
    run(world, 20)
    assert all(isinstance(end, FinishReason) for end in world.ends.values())


def test_requests_do_decode_where_they_were_handed_to() -> None:
    world = World(0)
    run(world, 20)
    computed = {node.holder.instance: node.runner.num_computed_tokens for node in world.nodes.values()}
    assert computed["decode-0"] > 0
    assert computed["decode-1"] > 0


@pytest.mark.parametrize("seed", range(40))
def test_memory_too_small_for_all_costs_time_and_no_token(seed: int) -> None:
    world = World(seed, num_blocks=11)
    run(world, 15)
    assert all(isinstance(end, FinishReason) for end in world.ends.values())


@pytest.mark.parametrize("seed", range(60))
def test_aborts_and_broken_streams_at_any_moment_leave_nothing_behind(seed: int) -> None:
    world = World(seed, num_prefill=2)
    run(world, 20, aborts=True, stream_losses=True)
    ends = set(world.ends.values())
    assert ends <= {FinishReason.LENGTH, FinishReason.STOP, Failure.ABORTED}


@pytest.mark.parametrize("seed", range(60))
def test_an_instance_that_dies_takes_only_its_own_requests_along(seed: int) -> None:
    world = World(seed, num_prefill=2, num_decode=3)
    victim = world.random.choice(list(world.nodes))
    for index in range(10):
        world.ask(f"r{index}", world.random.randint(1, 30), world.random.randint(1, 12))
    for _ in range(world.random.randint(0, 150)):
        world.turn()
    owned = {entry.request_id for entry in world.ledger if entry.owner == victim}
    granted = {entry.request_id for entry in world.ledger if entry.grant and entry.grant.receiver == victim}
    world.kill(victim)
    lost = {request_id for request_id, end in world.ends.items() if end is Failure.INSTANCE_LOST}
    assert lost == owned
    world.settle()
    world.assert_tokens_exact()
    world.assert_nothing_left()
    lost = {request_id for request_id, end in world.ends.items() if end is Failure.INSTANCE_LOST}
    assert owned <= lost <= owned | granted  # the baton may have arrived there before the ledger heard of it
