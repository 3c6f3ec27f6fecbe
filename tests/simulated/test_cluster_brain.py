"""The brain of a cluster under many seeds: exactly-once tokens, the right ones, and nothing left behind."""

from collections import Counter

import pytest

from cluster.messages import Holder
from router.ledger import Failure, Step
from tests.simulated.chaos import FINISHED, assert_only_the_unlucky_were_given_up, chaos, finish, pick, run
from tests.simulated.many_worlds import make_world
from tests.simulated.world import World

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize("seed", range(40))
def test_every_request_gets_all_its_tokens_once(seed: int) -> None:
    world = World(seed)
    run(world, 20)
    assert world.ends <= FINISHED


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
    assert world.ends <= FINISHED


@pytest.mark.parametrize("seed", range(30))
def test_instances_with_both_roles_do_not_wait_for_each_other(seed: int) -> None:
    """Each has room for little more than one request, and every request wants room in two places."""
    world = World(seed, num_prefill=0, num_decode=0, num_mixed=3, num_blocks=12)
    run(world, 20)
    assert world.ends <= FINISHED
    assert world.now_s < 60, "they got out of it, but by waiting for one another"


def test_seats_are_known_where_requests_are_placed() -> None:
    """More requests than seats wait at the router: nobody gives up on a handover and decodes where it must not."""
    world = World(0, num_prefill=1, num_decode=2, num_blocks=200, max_num_seqs=4)
    for index in range(40):
        world.ask(f"r{index}", 6, 8)
    finish(world)
    prefill = world.nodes[Holder("prefill-0", 1)]
    assert prefill.runner.num_computed_tokens == 40 * 6


@pytest.mark.parametrize("seed", range(60))
def test_aborts_and_broken_streams_at_any_moment_leave_nothing_behind(seed: int) -> None:
    world = World(seed, num_prefill=2)

    def disturb(world: World) -> None:
        world.random.choice([world.lose_peer_stream, lambda: world.abort(pick(world))])()

    run(world, 20, disturb)
    assert world.ends <= FINISHED | {Failure.ABORTED}


@pytest.mark.parametrize("seed", range(60))
def test_an_id_that_is_used_again_is_never_mistaken_for_its_earlier_request(seed: int) -> None:
    world = World(seed, num_prefill=2)

    def abort_and_ask_again(world: World) -> None:
        request_id = pick(world)
        world.abort(request_id)
        if request_id not in world.asked:
            world.ask(request_id, world.random.randint(1, 30), world.random.randint(1, 12))

    run(world, 20, abort_and_ask_again)
    assert world.ends <= FINISHED | {Failure.ABORTED}


@pytest.mark.parametrize("seed", range(40))
def test_instances_that_cannot_reach_each_other_cost_no_request(seed: int) -> None:
    """The front reaches both: what cannot be handed over runs where it is."""
    world = World(seed, num_prefill=2)
    run(world, 15, World.cut)
    assert world.ends <= FINISHED


@pytest.mark.parametrize("seed", range(60))
def test_lost_fronts_and_new_lives_leave_nothing_behind(seed: int) -> None:
    world = World(seed, num_prefill=2)

    def disturb(world: World) -> None:
        restart = lambda: world.restart(world.random.choice(list(world.nodes)))  # noqa: E731
        world.random.choice([world.lose_front_stream, world.lose_peer_stream, restart])()

    run(world, 20, disturb)
    assert world.ends <= FINISHED | {Failure.INSTANCE_LOST}
    assert_only_the_unlucky_were_given_up(world)


@pytest.mark.parametrize("seed", range(60))
def test_an_instance_that_dies_costs_no_request(seed: int) -> None:
    world = World(seed, num_prefill=2, num_decode=3)
    victim = world.random.choice(list(world.nodes))
    for index in range(10):
        world.ask(f"r{index}", world.random.randint(1, 30), world.random.randint(1, 12))
    for _ in range(world.random.randint(0, 150)):
        world.turn()
    world.kill(victim)
    finish(world)
    assert world.ends <= FINISHED


@pytest.mark.parametrize("seed", range(60))
def test_requests_move_while_they_run(seed: int) -> None:
    world = World(seed, num_prefill=1, num_decode=3, num_blocks=40)

    def move_some(world: World) -> None:
        for _ in range(3):
            world.move()

    run(world, 20, move_some)
    assert world.ends <= FINISHED


def test_moves_do_happen_and_most_of_them_succeed() -> None:
    steps: Counter[Step] = Counter()
    for seed in range(5):
        world = World(seed, num_prefill=1, num_decode=3, num_blocks=200)
        for index in range(6):
            world.ask(f"r{index}", 10, 60)
        for _ in range(300):
            world.move()
            for _ in range(10):
                world.turn()
        finish(world)
        steps.update(note.step for note in world.notes if note.reason == "migrate")
    assert steps[Step.PASSED] > steps[Step.GRANTED] / 2 > 30


@pytest.mark.parametrize("seed", range(40))
def test_a_router_that_restarts_loses_nothing(seed: int) -> None:
    world = World(seed, num_prefill=2)
    run(world, 20, lambda world: world.random.choice([World.restart_router, World.move])(world))
    assert world.ends <= FINISHED


@pytest.mark.parametrize("seed", range(100))
def test_everything_at_once(seed: int) -> None:
    chaos(make_world(seed))
