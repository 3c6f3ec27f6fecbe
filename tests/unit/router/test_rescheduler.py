"""What the policy is shown, and what becomes of its moves."""

import pytest

from cluster.engine.sequence import FinishReason
from cluster.handshake import draw_secret
from cluster.messages import HandOver
from router.config import RouterConfig
from router.policies import InstanceLoad, RequestLoad, ReschedulingConfig
from router.router import Router
from tests.unit.router.fake_instance import FakeInstance, settle, submit

pytestmark = pytest.mark.unit


def make_router(**rescheduling: object) -> Router:
    config = ReschedulingConfig(**rescheduling)  # type: ignore[arg-type]
    names = {"name": "r", "deployment": "test", "model_name": "tiny", "model_path": ""}
    return Router(RouterConfig(**names, secret=draw_secret(), term=1, rescheduling=config))


@pytest.fixture
async def router() -> Router:
    """Every instance with less than 200 steps left gives, every other takes."""
    router = make_router(source_below_steps=200.0, target_above_steps=200.0, cooldown_rounds=2)
    await router.set_instances([])
    return router


def load_of(router: Router, name: str) -> InstanceLoad:
    return next(load for load in router.rescheduler.loads() if load.holder.instance == name)


def request_of(router: Router, name: str, request_id: str) -> RequestLoad:
    return next(it for it in load_of(router, name).requests if it.request_id == request_id)


def fill(router: Router, num_requests: int = 4) -> FakeInstance:
    """An instance whose requests have 200 of 1024 tokens each: fewer than 200 steps are left."""
    a = FakeInstance(router, "a")
    for index in range(num_requests):
        submit(router, f"r{index}", num_prompt_tokens=197)
        a.begin(f"r{index}")
    return a


def hand_overs(instance: FakeInstance) -> list[HandOver]:
    return [message for message in instance.said if isinstance(message, HandOver)]


async def test_the_last_without_a_token_are_those_that_wait(router: Router) -> None:
    a = FakeInstance(router, "a")
    for index in range(4):
        submit(router, f"r{index}")
    a.begin("r0")
    a.report(num_waiting=2)
    assert [it.is_queued for it in load_of(router, "a").requests] == [False, False, True, True]
    a.report(num_waiting=0)
    assert not any(it.is_queued for it in load_of(router, "a").requests)


async def test_the_policy_sees_tokens_priorities_and_what_is_moving(router: Router) -> None:
    a = FakeInstance(router, "a")
    submit(router, "r", num_prompt_tokens=50, priority=3)
    a.begin("r")
    assert request_of(router, "a", "r") == RequestLoad(request_id="r", num_tokens=53, priority=3)
    b = FakeInstance(router, "b")
    router.hand_over("r", router._scheduler.member(b.holder).place, "migrate")  # type: ignore[union-attr]
    assert not request_of(router, "a", "r").can_move
    assert not request_of(router, "b", "r").can_move
    assert [load.num_moving for load in router.rescheduler.loads()] == [1, 1]


async def test_an_instance_without_much_left_gives_a_request_away_and_no_more_until_it_is_there(router: Router) -> None:
    a = fill(router)
    b = FakeInstance(router, "b")
    router.rescheduler.act()
    [hand_over] = hand_overs(a)
    assert hand_over.grant.receiver == b.holder
    b.take(hand_over)
    assert len(load_of(router, "b").requests) == 1
    assert request_of(router, "b", hand_over.request_id).num_rounds_since_move == 0
    assert request_of(router, "b", hand_over.request_id).came_from == a.holder


async def test_what_was_moved_is_forgotten_with_its_end(router: Router) -> None:
    a = fill(router)
    b = FakeInstance(router, "b")
    router.rescheduler.act()
    [hand_over] = hand_overs(a)
    b.take(hand_over)
    b.say(hand_over.request_id, hand_over.grant.epoch, 4, 1, FinishReason.LENGTH)
    assert router.rescheduler._last_moves == {}


async def test_where_the_policy_is_none_nothing_moves_but_what_is_drained() -> None:
    router = make_router(policy="none", source_below_steps=200.0, target_above_steps=200.0)
    await router.set_instances([])
    a = fill(router)
    FakeInstance(router, "b")
    router.rescheduler.act()
    assert hand_overs(a) == []
    router._scheduler.draining["a"] = "drain"
    router.rescheduler.act()
    assert len(hand_overs(a)) == ReschedulingConfig().max_handovers_per_instance


async def test_a_lost_target_leaves_the_request_where_it_is(router: Router) -> None:
    a = fill(router)
    b = FakeInstance(router, "b")
    router.rescheduler.act()
    [hand_over] = hand_overs(a)
    router.instances.on_lost(b.holder, "killed")
    await settle()
    assert request_of(router, "a", hand_over.request_id).can_move
    before = request_of(router, "a", hand_over.request_id).num_tokens
    a.say(hand_over.request_id, hand_over.epoch, 3, 1)
    assert request_of(router, "a", hand_over.request_id).num_tokens == before + 1
