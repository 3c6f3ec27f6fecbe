"""The pair of instances that takes the least time: by load over equal links, by load and links over others."""

from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.messages import Holder
from cluster.role import InstanceRole
from router.policies import Decision, Forecast, InstanceView, KnowsNothing, LeastLoaded, LeastTime, RequestView

pytestmark = pytest.mark.unit

P, D, M = InstanceRole.PREFILL, InstanceRole.DECODE, InstanceRole.MIXED


class Links(Forecast):
    """Seconds for 1,000 tokens, by names; all others take `usual_s`."""

    def __init__(self, seconds: Mapping[tuple[str, str], float], usual_s: float = 0.1) -> None:
        self._seconds, self._usual_s = seconds, usual_s

    def transfer_s(self, source: Holder, target: Holder, num_tokens: int) -> float:
        if source == target:
            return 0.0
        return self._seconds.get((source.instance, target.instance), self._usual_s) * num_tokens / 1000


def holder(name: str) -> Holder:
    return Holder(name, 1)


def make_view(name: str, role: InstanceRole, **fields: object) -> InstanceView:
    sizes = {"num_blocks": 1000, "block_size": 16, "max_num_seqs": 32, "saturation_tokens": 2048}
    speeds = {"prefill_tokens_per_s": 5000.0, "decode_step_s": 0.02}
    return InstanceView(holder=holder(name), role=role, **{**sizes, **speeds, **fields})  # type: ignore[arg-type]


def make_request(num_prompt_tokens: int = 1000, **fields: object) -> RequestView:
    return RequestView(request_id="r", num_prompt_tokens=num_prompt_tokens, **fields)  # type: ignore[arg-type]


def select(*instances: InstanceView, forecast: Forecast | None = None, **fields: object) -> Decision | None:
    return LeastTime().select(make_request(**fields), instances, forecast or KnowsNothing())  # type: ignore[arg-type]


def chosen(prefill: str, decode: str) -> Decision:
    return Decision(holder(prefill), holder(decode))


def test_of_instances_alike_the_near_pair_is_chosen() -> None:
    views = [make_view(name, role) for name, role in (("p0", P), ("p1", P), ("d0", D), ("d1", D))]
    assert select(*views, forecast=Links({("p1", "d0"): 0.01})) == chosen("p1", "d0")


@pytest.mark.parametrize(("num_committed", "target"), [(300, "d0"), (850, "d1")])
def test_however_short_steps_are_a_near_instance_is_not_filled_up(num_committed: int, target: str) -> None:
    near = make_view("d0", D, num_committed_blocks=num_committed, decode_step_s=0.002)
    far = make_view("d1", D, num_committed_blocks=300, decode_step_s=0.002)
    assert select(make_view("p0", P), near, far, forecast=Links({("p0", "d0"): 0.01}, 1.0)) == chosen("p0", target)


def test_waiting_is_worth_it_as_long_as_it_is_shorter_than_the_way_saved() -> None:
    near = make_view("p0", P, num_queued_tokens=1000)  # 0.2 s
    views = [near, make_view("p1", P), make_view("d0", D)]
    assert select(*views, forecast=Links({("p1", "d0"): 0.35})) == chosen("p0", "d0")
    assert select(*views, forecast=Links({("p1", "d0"): 0.25})) == chosen("p1", "d0")


def test_a_way_that_seems_a_little_shorter_is_no_reason() -> None:
    views = [make_view("p0", P), make_view("d0", D, num_committed_blocks=1), make_view("d1", D), make_view("d2", D)]
    assert select(*views, forecast=Links({("p0", "d0"): 0.9}, usual_s=1.0)) == chosen("p0", "d1")
    assert select(*views, forecast=Links({("p0", "d0"): 0.8}, usual_s=1.0)) == chosen("p0", "d0")


def test_a_long_prompt_goes_near_where_a_short_one_goes_to_whom_has_most_room() -> None:
    views = [make_view("p0", P), make_view("d0", D, num_committed_blocks=300), make_view("d1", D)]
    forecast = Links({("p0", "d1"): 0.5})
    assert select(*views, forecast=forecast, num_prompt_tokens=200) == chosen("p0", "d1")
    assert select(*views, forecast=forecast, num_prompt_tokens=4000) == chosen("p0", "d0")


def test_what_an_instance_has_already_need_not_travel() -> None:
    views = [make_view("p0", P), make_view("d0", D), make_view("d1", D)]
    forecast = Links({("p0", "d1"): 0.5}, usual_s=0.4)
    assert select(*views, forecast=forecast) == chosen("p0", "d0")
    assert select(*views, forecast=forecast, num_known_tokens={holder("d1"): 480}) == chosen("p0", "d1")


def test_what_an_instance_has_already_need_not_be_computed() -> None:
    views = [make_view("p0", P), make_view("p1", P, num_queued_tokens=500), make_view("d0", D)]
    assert select(*views) == chosen("p0", "d0")
    assert select(*views, num_known_tokens={holder("p1"): 640}) == chosen("p1", "d0")


def test_a_fast_prefill_instance_is_worth_waiting_for_and_noise_is_worth_nothing() -> None:
    views = [make_view("p0", P), make_view("p1", P, num_queued_tokens=100, prefill_tokens_per_s=6000.0)]
    assert select(*views, make_view("d0", D)) == chosen("p0", "d0")
    fast = views[1]._replace(prefill_tokens_per_s=20_000.0)
    assert select(views[0], fast, make_view("p2", P), make_view("d0", D)) == chosen("p1", "d0")


def test_an_instance_that_seems_very_slow_is_tried_all_the_same_when_the_others_have_work() -> None:
    slow = make_view("p0", P, prefill_tokens_per_s=10.0)
    assert select(slow, make_view("p1", P), make_view("p2", P), make_view("d0", D)) == chosen("p1", "d0")
    busy = [make_view(name, P, num_queued_tokens=1100) for name in ("p1", "p2")]
    assert select(slow, *busy, make_view("d0", D)) == chosen("p0", "d0")


def test_an_instance_that_has_measured_nothing_yet_counts_as_usual() -> None:
    views = [make_view("p0", P, num_queued_tokens=5), make_view("p1", P, prefill_tokens_per_s=0.0)]
    assert select(*views, make_view("d0", D)) == chosen("p1", "d0")


def test_how_long_a_step_was_a_moment_ago_does_not_draw_everybody_to_one_instance() -> None:
    views = [make_view("d0", D, num_committed_blocks=5), make_view("d1", D, num_committed_blocks=9, decode_step_s=0.01)]
    assert select(make_view("p0", P), *views) == chosen("p0", "d0")


def test_a_mixed_instance_keeps_what_it_prefills() -> None:
    views = [make_view("m0", M, num_committed_blocks=500), make_view("m1", M, num_committed_blocks=100)]
    assert select(*views, forecast=Links({}, usual_s=0.0)) == chosen("m1", "m1")


def test_a_request_waits_while_no_decode_instance_has_room_and_while_many_batches_are_ahead() -> None:
    full = make_view("d0", D, num_committed_blocks=999, num_requests=3)
    assert select(make_view("p0", P), full) is None
    assert select(make_view("p0", P, num_queued_tokens=4 * 2048), make_view("d0", D)) is None
    for name in ("p0", "d0"):
        seats = {name: 32}
        assert select(*(make_view(n, r, num_requests=seats.get(n, 0)) for n, r in (("p0", P), ("d0", D)))) is None


def test_an_idle_instance_takes_whatever_was_admitted() -> None:
    assert select(make_view("p0", P), make_view("d0", D), num_prompt_tokens=50_000) is not None


def test_a_pair_with_a_broken_link_is_not_chosen_while_there_is_another() -> None:
    near, far = make_view("d0", D), make_view("d1", D, num_committed_blocks=900)
    cut_off = make_view("p0", P, unreachable=frozenset({near.holder}))
    assert select(cut_off, near, far) == chosen("p0", "d1")
    other = make_view("p1", P, num_queued_tokens=5)
    assert select(cut_off, near, other) == chosen("p1", "d0")
    assert select(cut_off, near) == chosen("p0", "d0")
    assert select(make_view("p0", P), near, forecast=Links({}, usual_s=float("inf"))) == chosen("p0", "d0")


loads = st.tuples(st.integers(0, 8000), st.integers(0, 20), st.integers(0, 900))


@given(loads=st.lists(loads, min_size=2, max_size=6), num_prompt_tokens=st.integers(1, 3000), way_s=st.floats(0.0, 5.0))
@settings(max_examples=200)
def test_over_equal_links_the_choice_is_as_good_as_by_load(
    loads: list[tuple[int, int, int]], num_prompt_tokens: int, way_s: float
) -> None:
    views = [
        make_view(f"p{at}", P, num_queued_tokens=queued, num_requests=n) for at, (queued, n, _) in enumerate(loads)
    ]
    views += [make_view(f"d{at}", D, num_committed_blocks=blocks) for at, (_, _, blocks) in enumerate(loads)]
    request = make_request(num_prompt_tokens)
    by_load = LeastLoaded().select(request, views, KnowsNothing())
    by_time = LeastTime().select(request, views, Links({}, usual_s=way_s))
    if by_load is None or by_time is None:
        assert by_load == by_time
        return
    by_holder = {view.holder: view for view in views}
    assert by_holder[by_time.prefill].num_queued_tokens == by_holder[by_load.prefill].num_queued_tokens
    assert by_holder[by_time.decode].num_committed_blocks == by_holder[by_load.decode].num_committed_blocks


@pytest.mark.parametrize(("near_s", "far_s"), [(0.0, 0.05), (0.01, 1.0), (0.01, 10.0)])
def test_the_instance_with_the_best_link_is_not_filled_up_while_others_are_empty(near_s: float, far_s: float) -> None:
    forecast = Links({("p0", "d0"): near_s}, usual_s=far_s)
    decodes = {name: make_view(name, D) for name in ("d0", "d1", "d2")}
    while decodes["d1"].num_requests == 0:
        decision = select(make_view("p0", P), *decodes.values(), forecast=forecast)
        assert decision is not None, "the near one was filled to the brim"
        view = decodes[decision.decode.instance]
        decodes[view.holder.instance] = view._replace(
            num_requests=view.num_requests + 1, num_committed_blocks=view.num_committed_blocks + 63
        )
    assert decodes["d0"].num_committed_blocks < 0.95 * 1000
    if far_s < 0.1:
        assert decodes["d0"].num_committed_blocks <= 2 * 63
