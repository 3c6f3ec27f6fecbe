"""The queue, the picture of the instances, and the least-loaded policy on it."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from cluster.engine.block_hash import hash_blocks
from cluster.messages import Holder
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import InstanceSnapshot
from router.broken_links import BrokenLinks
from router.ledger import Note, Place, Step
from router.policies import Decision, Forecast, InstanceView, KnowsNothing, LeastLoaded, RequestView
from router.scheduler import Member, Scheduler

pytestmark = pytest.mark.unit


def holder(name: str) -> Holder:
    return Holder(name, 1)


def make_view(name: str, role: InstanceRole, **load: int) -> InstanceView:
    return InstanceView(
        holder=holder(name), role=role, num_blocks=100, block_size=16, max_num_seqs=8, saturation_tokens=256, **load
    )


def make_member(name: str, role: InstanceRole, num_blocks: int = 100) -> Member:
    place = Place(holder(name), f"{name}:1", f"{name}:2")
    return Member(place=place, role=role, num_blocks=num_blocks, block_size=16, max_num_seqs=8, saturation_tokens=256)


def make_request(request_id: str = "r", num_prompt_tokens: int = 100, priority: int = 0) -> RequestView:
    return RequestView(request_id=request_id, num_prompt_tokens=num_prompt_tokens, priority=priority)


def make_scheduler(*members: Member, max_queued_requests: int = 10) -> Scheduler:
    scheduler = Scheduler(LeastLoaded(), max_queued_requests)
    for member in members:
        scheduler.join(member)
    return scheduler


def snapshot(name: str, **fields: int) -> InstanceSnapshot:
    return InstanceSnapshot(
        instance=holder(name),
        role=InstanceRole.PREFILL,
        status=InstanceStatus.RUNNING,
        num_blocks=100,
        num_free_blocks=100,
        **fields,
    )


P, D, M = InstanceRole.PREFILL, InstanceRole.DECODE, InstanceRole.MIXED


def test_prefill_and_decode_are_chosen_together_each_by_its_own_load() -> None:
    views = [
        make_view("p0", P, num_queued_tokens=300),
        make_view("p1", P, num_queued_tokens=20),
        make_view("d0", D, num_committed_blocks=10),
        make_view("d1", D, num_committed_blocks=60),
    ]
    assert LeastLoaded().select(make_request(), views, KnowsNothing()) == Decision(holder("p1"), holder("d0"))


def test_a_mixed_instance_keeps_what_it_prefills() -> None:
    views = [make_view("m0", M, num_queued_tokens=5), make_view("m1", M, num_committed_blocks=50)]
    assert LeastLoaded().select(make_request(), views, KnowsNothing()) == Decision(holder("m1"), holder("m1"))


def test_a_request_waits_while_no_decode_instance_has_room() -> None:
    full = make_view("d0", D, num_committed_blocks=99, num_requests=3)
    assert LeastLoaded().select(make_request(), [make_view("p0", P), full], KnowsNothing()) is None


def test_an_idle_instance_takes_whatever_was_admitted() -> None:
    views = [make_view("p0", P), make_view("d0", D)]
    assert LeastLoaded().select(make_request(num_prompt_tokens=5000), views, KnowsNothing()) is not None


def test_a_request_waits_at_the_router_rather_than_behind_many_batches() -> None:
    views = [make_view("p0", P, num_queued_tokens=4 * 256), make_view("d0", D)]
    assert LeastLoaded().select(make_request(), views, KnowsNothing()) is None


def test_two_requests_in_one_moment_do_not_choose_the_same_idle_instance() -> None:
    scheduler = make_scheduler(make_member("p0", P), make_member("p1", P), make_member("d0", D), make_member("d1", D))
    scheduler.enqueue(make_request("a"))
    scheduler.enqueue(make_request("b"))
    first, second = scheduler.assign()
    assert first.prefill != second.prefill
    assert first.decode != second.decode


def test_what_a_report_has_seen_is_not_counted_twice() -> None:
    member = make_member("p0", P)
    scheduler = make_scheduler(member, make_member("d0", D))
    scheduler.enqueue(make_request("a", 100))
    scheduler.enqueue(make_request("b", 40))
    scheduler.assign()
    assert member.view().num_queued_tokens == 140
    member.observe(snapshot("p0", num_waiting_tokens=90, num_dispatches_seen=1))
    assert member.view().num_queued_tokens == 130
    member.observe_load(0, 2)
    assert member.view().num_queued_tokens == 0


def test_higher_priority_goes_first_and_then_who_came_first() -> None:
    scheduler = make_scheduler(make_member("p0", P), make_member("d0", D))
    for request_id, priority in (("a", 0), ("b", 5), ("c", 5)):
        scheduler.enqueue(make_request(request_id, priority=priority))
    assert [assignment.request_id for assignment in scheduler.assign()] == ["b", "c", "a"]


def test_a_request_weighs_on_its_decode_instance_until_it_is_forgotten() -> None:
    decode = make_member("d0", D)
    scheduler = make_scheduler(make_member("p0", P), decode)
    scheduler.enqueue(make_request("a", 100))
    scheduler.assign()
    scheduler.grow("a", 20)
    assert decode.view().num_committed_blocks == 120 // 16 + 1
    scheduler.forget("a")
    assert (decode.view().num_committed_blocks, decode.view().num_requests) == (0, 0)


def test_the_first_that_cannot_go_is_tried_again_only_when_somebody_may_have_got_room() -> None:
    prefill, decode = make_member("p0", P), make_member("d0", D, num_blocks=10)
    scheduler = make_scheduler(prefill, decode)
    asked: list[str] = []

    class Policy(LeastLoaded):
        def select(
            self, request: RequestView, instances: Sequence[InstanceView], forecast: Forecast
        ) -> Decision | None:
            asked.append(request.request_id)
            return super().select(request, instances, forecast)

    scheduler.policy = Policy()
    for request_id in "ab":
        scheduler.enqueue(make_request(request_id, 140))
    assert [it.request_id for it in scheduler.assign()] == ["a"]
    prefill.observe_load(0, 1)
    assert scheduler.assign() == []
    asked.clear()
    for _ in range(10):
        scheduler.grow("a", 1)
        decode.observe_load(0, 0)
        assert scheduler.assign() == []
    assert asked == []
    for happens in (
        lambda: decode.observe(replace(snapshot("d0"), role=D)),
        lambda: scheduler.draining.update(d0="drain"),
        lambda: scheduler.draining.pop("d0"),
        lambda: scheduler.enqueue(make_request("c")),
        lambda: scheduler.settle("a", holder("d0")),
    ):
        happens()
        assert scheduler.assign() == scheduler.assign() == []
    assert asked == ["b"] * 5
    scheduler.forget("a")
    assert scheduler.assign()[0].request_id == "b"


@pytest.mark.parametrize("num_prompt_tokens", [5, 40])
def test_what_was_computed_stays_where_it_was_for_prompts_shorter_than_a_block_too(num_prompt_tokens: int) -> None:
    prefill, decode = make_member("p0", P), make_member("d0", D)
    scheduler = make_scheduler(prefill, decode)
    token_ids = list(range(num_prompt_tokens + 30))
    for request_id, length in (("a", num_prompt_tokens), ("b", len(token_ids))):
        hashes = tuple(hash_blocks(token_ids[:length], 16))
        scheduler.enqueue(RequestView(request_id=request_id, num_prompt_tokens=length, block_hashes=hashes))
        [assignment] = scheduler.assign()
        scheduler.settle(request_id, holder("d0"))
        scheduler.computed(request_id, token_ids)
        scheduler.forget(request_id)
    assert assignment.num_missing_tokens == len(token_ids) % 16


def test_blocks_are_named_only_where_somebody_keeps_them_for_others() -> None:
    forgetful, keeping = replace(make_member("p0", P), caches_prefixes=False), make_member("d0", D)
    scheduler = make_scheduler(forgetful)
    assert scheduler.block_size is None
    scheduler.join(keeping)
    assert scheduler.block_size == 16
    scheduler.leave(holder("d0"))
    assert scheduler.block_size is None


def test_a_request_weighs_on_both_until_it_is_handed_over() -> None:
    prefill, decode = make_member("p0", P), make_member("d0", D)
    scheduler = make_scheduler(prefill, decode)
    scheduler.enqueue(make_request("a", 100))
    scheduler.assign()
    assert (prefill.view().num_requests, decode.view().num_requests) == (1, 1)
    scheduler.settle("a", holder("d0"))
    assert (prefill.view().num_requests, decode.view().num_requests) == (0, 1)


@pytest.mark.parametrize("full", ["p0", "d0"])
def test_a_request_waits_for_a_seat_on_either_side(full: str) -> None:
    views = [make_view(name, role, num_requests=8 if name == full else 0) for name, role in (("p0", P), ("d0", D))]
    assert LeastLoaded().select(make_request(), views, KnowsNothing()) is None


def test_a_request_that_stayed_where_it_was_weighs_there() -> None:
    prefill, decode = make_member("p0", P), make_member("d0", D)
    scheduler = make_scheduler(prefill, decode)
    scheduler.enqueue(make_request("a", 100))
    scheduler.assign()
    scheduler.settle("a", holder("p0"))
    assert (prefill.view().num_requests, decode.view().num_requests) == (1, 0)


def test_what_kind_of_instance_is_missing_is_known() -> None:
    assert make_scheduler(make_member("d0", D)).missing_role() == "prefill"
    assert make_scheduler(make_member("p0", P)).missing_role() == "decode"
    assert make_scheduler(make_member("m0", M)).missing_role() is None


def test_what_ran_before_goes_first_among_its_priority() -> None:
    scheduler = make_scheduler(make_member("p0", P), make_member("d0", D))
    for request_id, priority in (("new", 0), ("urgent", 1), ("ran", 0)):
        scheduler.enqueue(make_request(request_id, priority=priority))
    scheduler.enqueue_again(make_request("ran"))
    assert [assignment.request_id for assignment in scheduler.assign()] == ["urgent", "ran", "new"]


def test_what_waits_again_weighs_on_nobody() -> None:
    prefill, decode = make_member("p0", P), make_member("d0", D)
    scheduler = make_scheduler(prefill, decode)
    scheduler.enqueue(make_request("a", 100))
    scheduler.assign()
    scheduler.enqueue_again(make_request("a", 120))
    assert (prefill.view().num_requests, decode.view().num_requests) == (0, 0)
    assert scheduler.num_queued == 1


def test_a_request_that_is_to_be_at_an_instance_weighs_there_once() -> None:
    decode = make_member("d0", D)
    scheduler = make_scheduler(decode)
    for _ in range(2):
        scheduler.hold("a", holder("d0"), 100)
    scheduler.hold("a", holder("gone"), 100)
    scheduler.grow("a", 1)
    assert decode.num_tokens == {"a": 101}
    scheduler.forget("a")
    assert decode.view().num_requests == 0


def test_a_pair_with_a_broken_link_is_not_chosen_while_there_is_another() -> None:
    near, far = make_view("d0", InstanceRole.DECODE), make_view("d1", InstanceRole.DECODE)
    cut_off = make_view("p0", InstanceRole.PREFILL)._replace(unreachable=frozenset({near.holder}))
    assert LeastLoaded().select(make_request(), [cut_off, near, far], KnowsNothing()) == Decision(
        holder("p0"), holder("d1")
    )
    other = make_view("p1", InstanceRole.PREFILL, num_queued_tokens=5)
    assert LeastLoaded().select(make_request(), [cut_off, near, other], KnowsNothing()) == Decision(
        holder("p1"), holder("d0")
    )
    assert LeastLoaded().select(make_request(), [cut_off, near], KnowsNothing()) == Decision(holder("p0"), holder("d0"))


async def test_a_link_is_avoided_after_a_failure_and_tried_again_later() -> None:
    source = make_member("p0", InstanceRole.PREFILL)
    scheduler = make_scheduler(source, make_member("d0", InstanceRole.DECODE))
    links = BrokenLinks(scheduler, retry_after_s=0.0)
    kept = Note(request_id="r", step=Step.KEPT, holder=holder("p0"), peer=holder("d0"), reason="full")
    links.on_note(kept)
    assert not source.unreachable
    links.on_note(replace(kept, reason="transfer failed: cut", unreachable=True))
    assert source.view().unreachable == {holder("d0")}
    tried_again = asyncio.Event()
    asyncio.get_running_loop().call_later(0.0, tried_again.set)
    await tried_again.wait()
    assert not source.unreachable
