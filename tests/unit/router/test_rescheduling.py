"""Which requests move where: Llumnix's load balance, and the emptying of an instance."""

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.messages import Holder
from cluster.role import InstanceRole
from router.policies import (
    DrainOnly,
    Forecast,
    InstanceLoad,
    KnowsNothing,
    LoadBalance,
    Move,
    RequestLoad,
    ReschedulingConfig,
)
from router.policies.drain import victims
from router.policies.interface import Matrix
from router.policies.virtual_usage import Usage, has_room, spread_steps

pytestmark = pytest.mark.unit

CONFIG = ReschedulingConfig(
    source_below_steps=100, target_above_steps=200, cooldown_rounds=3, margin_steps=50, max_handovers_per_instance=2
)


def make_request(request_id: str = "r", num_tokens: int = 100, **fields: object) -> RequestLoad:
    return RequestLoad(request_id=request_id, num_tokens=num_tokens, **fields)  # type: ignore[arg-type]


def make_instance(name: str, *requests: RequestLoad, **fields: object) -> InstanceLoad:
    options = {"role": InstanceRole.DECODE, "num_blocks": 100, "block_size": 16, "max_num_seqs": 16, "kv_layout": "k"}
    return InstanceLoad(holder=Holder(name, 1), requests=requests, **{**options, **fields})  # type: ignore[arg-type]


def make_busy(name: str = "busy", num_requests: int = 10, num_tokens: int = 140, **fields: object) -> InstanceLoad:
    requests = [make_request(f"{name}{index}", num_tokens) for index in range(num_requests)]
    return make_instance(name, *requests, **fields)


class SecondsTo(Forecast):
    """How long a request takes to an instance, by its name, for each 100 tokens."""

    def __init__(self, **seconds: float) -> None:
        self._seconds = seconds

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        return self._seconds.get(target.instance, 0.0) * num_tokens / 100


def freeness(instance: InstanceLoad) -> float:
    return Usage.of(instance).freeness_steps


def after(instances: list[InstanceLoad], moves: list[Move], *, num_moving: int = 0) -> list[InstanceLoad]:
    """With the moves done."""
    by_holder = {instance.holder: instance for instance in instances}
    for move in moves:
        source, target = by_holder[move.source], by_holder[move.target]
        [request] = [it for it in source.requests if it.request_id == move.request_id]
        left = tuple(it for it in source.requests if it is not request)
        come = replace(request, came_from=move.source, num_rounds_since_move=0)
        by_holder[move.source] = replace(source, requests=left, num_moving=num_moving)
        by_holder[move.target] = replace(target, requests=(*target.requests, come), num_moving=num_moving)
    return list(by_holder.values())


def test_freeness_is_what_is_left_shared_among_the_batch() -> None:
    assert freeness(make_instance("d", make_request("a", 100), make_request("b", 100))) == (100 - 14) * 16 / 2


def test_of_the_queued_only_the_first_weighs() -> None:
    queued = [make_request(f"q{index}", 159, is_queued=True) for index in range(3)]
    assert freeness(make_instance("d", *queued)) == 90 * 16


def test_a_draining_instance_is_never_free() -> None:
    assert freeness(make_instance("d", is_draining=True)) == -math.inf


def test_the_least_free_gives_its_cheapest_request_to_the_most_free() -> None:
    busy = make_busy(num_requests=9, num_tokens=160)
    cheap = replace(busy, requests=(*busy.requests, make_request("cheap", 20)))
    idle, idler = make_instance("idle", make_request("x", 400)), make_instance("idler")
    assert LoadBalance(CONFIG).plan([idle, cheap, idler], KnowsNothing()) == [
        Move(request_id="cheap", source=cheap.holder, target=idler.holder, reason="balance")
    ]


def test_unimportant_requests_leave_first_then_small_ones() -> None:
    requests = [make_request("big", 500), make_request("vip", 20, priority=1), make_request("small", 30)]
    assert [it.request_id for it in victims(make_instance("d", *requests))] == ["small", "big", "vip"]


@pytest.mark.parametrize("num_requests", [0, 1, 4])
def test_a_cluster_with_room_is_left_alone(num_requests: int) -> None:
    assert LoadBalance(CONFIG).plan([make_busy(num_requests=num_requests), make_instance("idle")], KnowsNothing()) == []


def test_the_only_request_of_an_instance_gains_nothing_elsewhere() -> None:
    alone = make_instance("d", make_request("r", 1550))
    assert LoadBalance(CONFIG).plan([alone, make_instance("idle")], KnowsNothing()) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"role": InstanceRole.PREFILL},
        {"kv_layout": "other"},
        {"is_draining": True},
        {"num_moving": 2},
        {"max_num_seqs": 0},
        {"num_blocks": 8},
    ],
)
def test_an_instance_that_cannot_take_it_is_no_target(changes: dict[str, object]) -> None:
    assert LoadBalance(CONFIG).plan([make_busy(), make_instance("idle", **changes)], KnowsNothing()) == []


def test_what_is_moved_already_stays_out_of_it() -> None:
    busy = make_busy()
    moving = replace(busy, requests=tuple(replace(it, can_move=False) for it in busy.requests))
    assert LoadBalance(CONFIG).plan([moving, make_instance("idle")], KnowsNothing()) == []


@pytest.mark.parametrize(("rounds", "leaves"), [(0, False), (2, False), (3, True), (None, True)])
def test_a_request_stays_for_a_while_where_it_came_to(rounds: int | None, leaves: bool) -> None:
    busy = make_busy()
    cooling = replace(busy, requests=tuple(replace(it, num_rounds_since_move=rounds) for it in busy.requests))
    assert bool(LoadBalance(CONFIG).plan([cooling, make_instance("idle")], KnowsNothing())) == leaves


@pytest.mark.parametrize(("margin_steps", "goes_back"), [(50, True), (5000, False)])
def test_it_goes_back_to_where_it_was_only_for_a_large_gain(margin_steps: float, goes_back: bool) -> None:
    busy, idle = make_busy(), make_instance("idle")
    homesick = replace(busy, requests=tuple(replace(it, came_from=idle.holder) for it in busy.requests))
    policy = LoadBalance(replace(CONFIG, margin_steps=margin_steps))
    assert bool(policy.plan([homesick, idle], KnowsNothing())) == goes_back


def test_a_draining_instance_gives_as_many_at_a_time_as_it_may_and_says_why() -> None:
    draining = make_busy(is_draining=True)
    moves = DrainOnly(CONFIG).plan([draining, make_instance("a"), make_instance("b")], KnowsNothing())
    assert [(move.source, move.reason) for move in moves] == [(draining.holder, "drain")] * 2
    assert len({move.target for move in moves}) == 2


def test_one_that_cannot_leave_a_draining_instance_does_not_hold_up_the_others() -> None:
    stuck = [make_request("a", 10, num_rounds_since_move=0), make_request("b", 10, num_rounds_since_move=1)]
    draining = make_instance("old", *stuck, make_request("c", 500), make_request("d", 600), is_draining=True)
    moves = DrainOnly(CONFIG).plan([draining, make_instance("new")], KnowsNothing())
    assert [move.request_id for move in moves] == ["c", "d"]


def test_without_balancing_only_draining_instances_give() -> None:
    assert DrainOnly(CONFIG).plan([make_busy(), make_instance("idle")], KnowsNothing()) == []


REQUESTS = st.lists(
    st.builds(
        lambda num_tokens, priority, is_queued, rounds: make_request(
            "", num_tokens, priority=priority, is_queued=is_queued, num_rounds_since_move=rounds
        ),
        st.integers(1, 400),
        st.integers(-1, 1),
        st.booleans(),
        st.none() | st.integers(0, 5),
    ),
    max_size=12,
)


@st.composite
def clusters(draw: st.DrawFn) -> list[InstanceLoad]:
    instances = []
    for index in range(draw(st.integers(2, 4))):
        requests = [replace(it, request_id=f"{index}-{n}") for n, it in enumerate(draw(REQUESTS))]
        role = draw(st.sampled_from(InstanceRole))
        num_blocks = draw(st.integers(20, 120))
        instances.append(make_instance(f"i{index}", *requests, role=role, num_blocks=num_blocks))
    return instances


@given(clusters())
def test_every_pair_comes_strictly_closer_and_nobody_is_overrun(instances: list[InstanceLoad]) -> None:
    policy = LoadBalance(CONFIG)
    for move in policy.plan(instances, KnowsNothing()):
        by_holder = {instance.holder: instance for instance in instances}
        before = [Usage.of(by_holder[holder]) for holder in (move.source, move.target)]
        [request] = [it for it in by_holder[move.source].requests if it.request_id == move.request_id]
        assert has_room(by_holder[move.target], request)
        instances = after(instances, [move], num_moving=1)
        by_holder = {instance.holder: instance for instance in instances}
        assert spread_steps(*(Usage.of(by_holder[holder]) for holder in (move.source, move.target))) < spread_steps(
            *before
        )


@given(clusters(), st.integers(0, 3))
def test_no_instance_has_more_handovers_than_it_may(instances: list[InstanceLoad], num_draining: int) -> None:
    instances = [replace(it, is_draining=index < num_draining) for index, it in enumerate(instances)]
    moves = LoadBalance(CONFIG).plan(instances, KnowsNothing())
    for instance in instances:
        assert sum(instance.holder in (move.source, move.target) for move in moves) <= 2
    assert len({move.request_id for move in moves}) == len(moves)


@given(clusters())
def test_a_cluster_that_does_not_change_comes_to_rest_and_nothing_goes_back_and_forth(
    instances: list[InstanceLoad],
) -> None:
    policy = LoadBalance(CONFIG)
    last_move: dict[str, tuple[int, Move]] = {}
    last_round = 0
    for number in range(100):
        moves = policy.plan(instances, KnowsNothing())
        for move in moves:
            if move.request_id in last_move:
                assert number - last_move[move.request_id][0] >= CONFIG.cooldown_rounds
            last_move[move.request_id] = number, move
            last_round = number
        instances = [replace(it, requests=_later(it.requests)) for it in after(instances, moves)]
    assert last_round < 60


def _later(requests: tuple[RequestLoad, ...]) -> tuple[RequestLoad, ...]:
    return tuple(
        it if it.num_rounds_since_move is None else replace(it, num_rounds_since_move=it.num_rounds_since_move + 1)
        for it in requests
    )


@given(REQUESTS)
def test_draining_empties_an_instance_where_there_is_room(requests: list[RequestLoad]) -> None:
    named = [replace(it, request_id=str(index)) for index, it in enumerate(requests)]
    instances = [make_instance("old", *named, num_blocks=400, is_draining=True), make_instance("new", num_blocks=400)]
    for _ in range(len(requests)):
        instances = after(instances, DrainOnly(CONFIG).plan(instances, KnowsNothing()))
    assert [len(instance.requests) for instance in instances] == [0, len(requests)]


@pytest.mark.parametrize("policy", [LoadBalance, DrainOnly])
def test_of_targets_about_as_free_the_nearest_is_taken(policy: type[LoadBalance | DrainOnly]) -> None:
    busy = make_busy(is_draining=policy is DrainOnly)
    far, near = make_instance("far"), make_instance("near", make_request("x", 200))
    for forecast, name in ((SecondsTo(far=2.0, near=1.0), "near"), (SecondsTo(), "far")):
        assert policy(CONFIG).plan([busy, far, near], forecast)[0].target.instance == name


def test_a_target_that_is_much_freer_is_taken_although_it_is_farther() -> None:
    far, near = make_instance("far"), make_instance("near", make_request("x", 800))
    [move] = LoadBalance(CONFIG).plan([make_busy(), far, near], SecondsTo(far=2.0, near=1.0))
    assert move.target == far.holder


def test_a_move_that_takes_too_long_relieves_nobody_and_is_made_by_a_drain() -> None:
    busy, idle = make_busy(num_tokens=140), make_instance("idle")
    slow = SecondsTo(idle=1.1 * CONFIG.max_move_s / 1.4)
    assert LoadBalance(CONFIG).plan([busy, idle], slow) == []
    assert LoadBalance(CONFIG).plan([busy, idle], SecondsTo(idle=0.9 * CONFIG.max_move_s / 1.4)) != []
    assert LoadBalance(CONFIG).plan([replace(busy, is_draining=True), idle], slow) != []


def test_a_short_request_is_moved_where_a_long_one_takes_too_long() -> None:
    busy = make_busy(num_tokens=140)
    mixed = replace(busy, requests=(replace(busy.requests[0], priority=-1), *busy.requests[1:], make_request("s", 50)))
    [move] = LoadBalance(CONFIG).plan([mixed, make_instance("idle")], SecondsTo(idle=CONFIG.max_move_s))
    assert move.request_id == "s"


def test_nothing_is_moved_to_where_no_kv_gets_through() -> None:
    draining, cut_off = make_busy(is_draining=True), make_instance("cut_off")
    assert DrainOnly(CONFIG).plan([draining, cut_off], SecondsTo(cut_off=math.inf)) == []
    waits = make_instance("old", make_request("q", 50, is_queued=True), is_draining=True)
    assert len(DrainOnly(CONFIG).plan([waits, cut_off], SecondsTo(cut_off=math.inf))) == 1


class CountsAsks(KnowsNothing):
    def __init__(self) -> None:
        self.num_asked = 0

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        self.num_asked += 1
        return super().transfer_s(source, target, num_tokens)

    def transfers_s(self, sources: Sequence[Holder], targets: Sequence[Holder], num_tokens: Matrix) -> Matrix:
        self.num_asked += 1
        return super().transfers_s(sources, targets, num_tokens)


@pytest.mark.parametrize("policy", [LoadBalance, DrainOnly])
def test_the_forecast_is_asked_of_no_more_than_what_might_be_moved(policy: type[LoadBalance | DrainOnly]) -> None:
    requests = [make_request(f"r{index}", 100 + index) for index in range(12)]
    source = make_instance("source", *requests, is_draining=policy is DrainOnly)
    shut, forecast = make_instance("shut", max_num_seqs=0), CountsAsks()
    assert policy(CONFIG).plan([source, shut], forecast) == []
    assert forecast.num_asked == 0
    others = [make_instance(f"idle{index}") for index in range(20)]
    num_moves = len(policy(CONFIG).plan([source, shut, *others], forecast))
    assert num_moves > 0
    assert forecast.num_asked <= 2 * num_moves, "once for all targets, once for the request that leaves"


def test_who_has_room_is_a_target_where_the_freest_has_none() -> None:
    shut, idle = make_instance("shut", num_blocks=200, max_num_seqs=0), make_instance("idle")
    [move] = LoadBalance(CONFIG).plan([make_busy(), shut, idle], KnowsNothing())
    assert move.target == idle.holder
