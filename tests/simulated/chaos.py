"""What happens in a world, and what must hold whatever happens."""

from collections import Counter
from collections.abc import Callable

from cluster.engine.sequence import FinishReason
from router.ledger import MAX_RECOVERIES, Failure, Step
from tests.simulated.world import World

FINISHED = {FinishReason.LENGTH, FinishReason.STOP}


def run(world: World, num_requests: int, disturb: Callable[[World], None] | None = None) -> None:
    for index in range(num_requests):
        length, max_tokens = world.random.randint(1, 30), world.random.randint(1, 12)
        world.ask(f"r{index}", length, max_tokens, shared_prefix=world.random.random() < 0.5)
        for _ in range(world.random.randint(0, 30)):
            world.turn()
        if disturb and world.random.random() < 0.3:
            disturb(world)
    finish(world)


def finish(world: World) -> None:
    world.settle()
    world.assert_tokens_exact()
    world.assert_nothing_left()


def assert_only_the_unlucky_were_given_up(world: World) -> None:
    """A request that lost one instance after the other is not given to yet another."""
    recoveries = Counter(note.request_id for note in world.notes if note.step is Step.RECOVERING)
    assert all(recoveries[request_id] > MAX_RECOVERIES for request_id in world.ended(Failure.INSTANCE_LOST))


def pick(world: World) -> str:
    return world.random.choice(list(world.asked) or ["none"])


def chaos(world: World) -> None:
    faults = [
        World.move,
        World.move,
        World.move,
        World.lose_peer_stream,
        World.lose_front_stream,
        World.cut,
        World.heal,
        World.give_role,
        World.restart_router,
        lambda world: world.restart(world.random.choice(list(world.nodes))),
        lambda world: world.abort(pick(world)),
        lambda world: world.pass_time(world.random.random() * 6),
    ]
    run(world, 20, lambda world: world.random.choice(faults)(world))
    assert world.ends <= FINISHED | {Failure.ABORTED, Failure.INSTANCE_LOST}
    assert_only_the_unlucky_were_given_up(world)
