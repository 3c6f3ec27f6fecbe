"""What operators and the rescheduler do with running requests: instances here say what the test makes them say."""

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import aclosing

import pytest

from cluster.engine.sequence import FinishReason
from cluster.handshake import draw_secret
from cluster.messages import Dispatch, HandOver, SetRole
from cluster.role import InstanceRole
from cluster.snapshot import HandoverSnapshot
from router import operations
from router.config import RouterConfig
from router.errors import InvalidRequest, OperationRefused
from router.ledger import Step
from router.operations import DrainProgress, Migrated
from router.policies import ReschedulingConfig
from router.router import Router
from tests.unit.router.fake_instance import FakeInstance, settle, submit

pytestmark = pytest.mark.unit

P, D, M = InstanceRole.PREFILL, InstanceRole.DECODE, InstanceRole.MIXED


@pytest.fixture
async def router() -> AsyncIterator[Router]:
    config = ReschedulingConfig(interval_s=1000.0)
    names = {"name": "r", "deployment": "test", "model_name": "tiny", "model_path": ""}
    router = Router(RouterConfig(**names, secret=draw_secret(), term=1, rescheduling=config))
    await router.set_instances([])
    running = asyncio.create_task(router.rescheduler.run())
    yield router
    running.cancel()


@pytest.fixture
def pair(router: Router) -> tuple[FakeInstance, FakeInstance]:
    """Two mixed instances; the first has the request r, which decodes."""
    a = FakeInstance(router, "a")
    submit(router, "r")
    a.begin("r")
    return a, FakeInstance(router, "b")


Pair = tuple[FakeInstance, FakeInstance]


async def test_migrate_answers_when_the_request_runs_there(router: Router, pair: Pair) -> None:
    a, b = pair
    migration = asyncio.create_task(router.operations.migrate("r", "b"))
    await settle()
    hand_over = a.last(HandOver)
    assert (hand_over.request_id, hand_over.grant.receiver) == ("r", b.holder)
    assert not migration.done()
    b.take(hand_over)
    assert await migration == Migrated(source="a", target="b")


async def test_a_request_that_stays_is_refused_with_what_the_instance_said(router: Router, pair: Pair) -> None:
    a, _ = pair
    migration = asyncio.create_task(router.operations.migrate("r", "b"))
    await settle()
    a.refuse(a.last(HandOver), "no block is free")
    with pytest.raises(OperationRefused, match="r stays where it is: no block is free"):
        await migration
    assert router.operations._migrations == {}


async def test_a_request_that_ends_meanwhile_is_no_success(router: Router, pair: Pair) -> None:
    a, _ = pair
    migration = asyncio.create_task(router.operations.migrate("r", "b"))
    await settle()
    a.say("r", a.last(Dispatch).epoch, 3, 1, FinishReason.LENGTH)
    with pytest.raises(OperationRefused, match="r ended before it was passed on"):
        await migration


async def assert_refused(operation: Awaitable[object], reason: str, *instances: FakeInstance) -> None:
    """With the reason, and nobody was told anything."""
    said = [len(instance.said) for instance in instances]
    with pytest.raises(OperationRefused, match=reason):
        await operation
    await settle()
    assert [len(instance.said) for instance in instances] == said


async def test_bad_migrations_are_refused_with_the_reason_and_change_nothing(router: Router, pair: Pair) -> None:
    migrate = router.operations.migrate
    await assert_refused(migrate("nobody", "b"), "nobody is unknown or over", *pair)
    await assert_refused(migrate("r", "a"), "r is in a already", *pair)
    await assert_refused(migrate("r", "z"), "there is no instance 'z'; there are a, b", *pair)
    FakeInstance(router, "other", kv_layout="x")
    await assert_refused(migrate("r", "other"), "other has another model or KV layout than a", *pair)
    FakeInstance(router, "tiny", num_blocks=1)
    await assert_refused(migrate("r", "tiny"), "tiny is full", *pair)
    router.instances.on_lost(pair[1].holder, "killed")
    await assert_refused(migrate("r", "b"), "b does not answer now", *pair)


async def test_a_request_that_is_queued_or_moves_already_is_refused(router: Router, pair: Pair) -> None:
    a, b = pair
    migration = asyncio.create_task(router.operations.migrate("r", "b"))
    await settle()
    await assert_refused(router.operations.migrate("r", "b"), "is being handed over to b already", *pair)
    b.take(a.last(HandOver))
    await migration
    router._scheduler.draining["b"] = "drain"
    submit(router, "small")
    submit(router, "big", 2000)  # more than is left in an instance that is not idle: it waits
    await assert_refused(router.operations.migrate("big", "a"), "big waits to be dispatched", *pair)


async def test_a_draining_instance_takes_nothing_and_gives_what_it_has(router: Router, pair: Pair) -> None:
    a, b = pair
    a.report(num_sequences=1)
    drain = router.operations.drain("a")
    assert await anext(drain) == DrainProgress(num_requests=1, num_moved=0)
    await settle()
    submit(router, "later")
    assert b.last(Dispatch).state.request_id == "later"
    await assert_refused(router.operations.migrate("later", "a"), "a is being drained", *pair)
    b.take(a.last(HandOver))
    assert await anext(drain) == DrainProgress(num_requests=0, num_moved=1)
    a.report(num_sequences=0)
    assert await anext(drain) == DrainProgress(num_requests=0, num_moved=1, done=True)
    with pytest.raises(StopAsyncIteration):
        await anext(drain)
    router.operations.undo_drain("a")
    submit(router, "last")
    assert a.last(Dispatch).state.request_id == "last"


async def test_a_drain_without_progress_says_so_again(
    router: Router, pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operations, "PROGRESS_INTERVAL_S", 0.001)
    pair[0].report(num_sequences=1)
    drain = router.operations.drain("a")
    seen = [await asyncio.wait_for(anext(drain), 20.0) for _ in range(3)]
    assert seen == [DrainProgress(num_requests=1, num_moved=0)] * 3
    await drain.aclose()


async def test_what_stays_is_tried_again_with_the_next_round(router: Router, pair: Pair) -> None:
    a, b = pair
    drain = router.operations.drain("a")
    await anext(drain)
    await settle()
    a.refuse(a.last(HandOver), "the link broke")
    await settle()
    assert len([it for it in a.said if isinstance(it, HandOver)]) == 1
    router.rescheduler.act()
    b.take(a.last(HandOver))
    assert (await anext(drain)).num_moved == 1


async def test_as_many_leave_at_a_time_as_may(router: Router) -> None:
    a = FakeInstance(router, "a")
    for index in range(5):
        submit(router, f"r{index}")
        a.begin(f"r{index}")
    b = FakeInstance(router, "b")
    a.report(num_sequences=5)
    drain = router.operations.drain("a")
    await anext(drain)
    seen = set()
    while len(seen) < 5:
        await settle()
        started = [it for it in a.said if isinstance(it, HandOver) and it.request_id not in seen]
        assert 1 <= len(started) <= ReschedulingConfig().max_handovers_per_instance
        seen.add(started[0].request_id)
        b.take(started[0])
    a.report(num_sequences=0)
    await settle()
    assert [progress async for progress in drain][-1] == DrainProgress(num_requests=0, num_moved=5, done=True)


async def test_the_last_instance_of_a_role_is_neither_drained_nor_flipped(router: Router) -> None:
    instances = [FakeInstance(router, "p", P), FakeInstance(router, "d", D)]
    operations = router.operations
    await assert_refused(anext(operations.drain("p")), "p is the last that can prefill", *instances)
    await assert_refused(anext(operations.flip("d", "prefill")), "d is the last that can decode", *instances)
    await assert_refused(anext(operations.flip("d", "decode")), "d is a decode instance already", *instances)
    FakeInstance(router, "d2", D, kv_layout="other")
    await assert_refused(anext(operations.drain("d")), "can read the KV blocks of d", *instances)
    assert router._scheduler.draining == {}
    with pytest.raises(InvalidRequest, match="should be prefill, decode or mixed"):
        await anext(operations.flip("d", "cook"))
    with pytest.raises(OperationRefused, match="d is not being drained"):
        operations.undo_drain("d")


async def test_a_flipped_instance_has_its_role_in_later_lives_too(router: Router) -> None:
    FakeInstance(router, "p", P)
    a, _ = FakeInstance(router, "a", D), FakeInstance(router, "b", D)
    a.report()
    flip = asyncio.create_task(collect(router.operations.flip("a", "prefill")))
    await settle()
    assert a.last(SetRole) == SetRole(role=P)
    assert router._scheduler.draining == {"a": "flip"}
    a.role = P
    a.report()
    assert (await flip)[-1].done
    assert router._scheduler.draining == {}
    router.instances.on_lost(a.holder, "killed")
    assert router.operations.roles() == {"p": P, "a": P, "b": D}
    again = FakeInstance(router, "a", D, life=2)
    assert again.last(SetRole) == SetRole(role=P)


async def collect(steps: AsyncIterator[DrainProgress]) -> list[DrainProgress]:
    return [progress async for progress in steps]


async def test_a_flip_that_nobody_waits_for_any_more_is_undone(router: Router, pair: Pair) -> None:
    a, _ = pair
    a.report(num_sequences=1)
    async with aclosing(router.operations.flip("a", "decode")) as flip:
        await anext(flip)
        await settle()
        assert [event.note.reason for event in router.timeline.of("r") if event.note.step is Step.GRANTED] == ["flip"]
        assert router._scheduler.draining == {"a": "flip"}
    assert router._scheduler.draining == {}
    assert not [it for it in a.said if isinstance(it, SetRole)]


async def test_status_shows_who_is_drained_and_what_is_under_way(router: Router, pair: Pair) -> None:
    a, _ = pair
    handover = HandoverSnapshot(
        request_id="r",
        source="a",
        target="b",
        state="TRANSFERRING",
        stage=2,
        num_blocks_sent=3,
        num_blocks=4,
        num_bytes=5,
    )
    a.report(num_sequences=1, handovers=(handover,), num_fenced=7, num_bad_blocks=2, num_checksum_failures=1)
    await anext(router.operations.drain("a"))
    status = router.status()
    shown = {it.instance: it for it in status.instances}
    assert (shown["a"].status, shown["a"].num_fenced, shown["a"].num_bad_blocks) == ("DRAINING", 7, 2)
    assert shown["a"].num_checksum_failures == 1
    [under_way] = status.handovers
    assert (under_way.request_id, under_way.state, under_way.stage, under_way.num_bytes) == ("r", "TRANSFERRING", 2, 5)


async def test_the_timeline_names_everybody_who_held_the_request(router: Router, pair: Pair) -> None:
    a, b = pair
    migration = asyncio.create_task(router.operations.migrate("r", "b"))
    await settle()
    b.take(a.last(HandOver))
    await migration
    b.say("r", a.last(HandOver).grant.epoch, 4, 1, FinishReason.LENGTH)
    events = router.timeline.of("r")
    steps = [(it.note.step.value, it.note.holder.instance) for it in events if it.note.holder]
    assert steps == [("dispatched", "a"), ("granted", "a"), ("passed", "b"), ("finished", "b")]
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
