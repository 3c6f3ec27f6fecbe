import pytest

from router.links.probe_plan import ProbeConfig, ProbePlan, Wishes

pytestmark = pytest.mark.unit

AB, BA, AC, BC, CD = ("a", "b"), ("b", "a"), ("a", "c"), ("b", "c"), ("c", "d")
NOBODY: set[str] = set()


@pytest.fixture
def plan() -> ProbePlan:
    return ProbePlan(ProbeConfig())


def begin(plan, now_s=0.0, busy=NOBODY, **wishes):
    return list(plan.begin(Wishes(**wishes), busy, now_s))


def test_disjoint_pairs_run_at_once_and_no_node_is_in_two(plan):
    assert begin(plan, unknown=[AB, BA, BC, CD, ("e", "e")]) == [AB, CD, ("e", "e")]
    assert begin(plan, unknown=[AB, BA, BC, CD]) == []
    plan.end(AB, 0.5)
    assert begin(plan, 0.5, unknown=[BA, BC]) == [BA]


def test_operators_come_first_then_what_is_unknown_then_degraded_then_stale(plan):
    wishes = {"asked": [AB], "unknown": [BA], "degraded": [("b", "d")], "stale": [("c", "e"), CD]}
    assert begin(plan, **wishes) == [AB, ("c", "e")]
    plan.end(AB, 1.0)
    wishes["asked"] = []
    assert begin(plan, 1.0, **wishes) == [BA]


def test_a_busy_node_is_left_alone_unless_nothing_is_known_or_somebody_asks(plan):
    assert begin(plan, busy={"a", "b", "c"}, stale=[AB], degraded=[AC]) == []
    assert begin(plan, busy={"a", "b", "c"}, unknown=[AB]) == [AB]
    assert begin(plan, busy={"a", "b", "c", "d"}, asked=[CD]) == [CD]


def test_a_degraded_link_waits_for_idle_nodes_only_so_long(plan):
    assert begin(plan, 0.0, {"a"}, degraded=[AB]) == []
    assert begin(plan, 9.0, {"a"}, degraded=[AB]) == []
    assert begin(plan, 10.0, {"a"}, degraded=[AB]) == [AB]


def test_a_node_rests_after_probes_that_nothing_depended_on(plan):
    assert begin(plan, stale=[AB, CD]) == [AB, CD]
    plan.end(AB, 0.5)
    assert begin(plan, 9.9, stale=[BA]) == []
    assert begin(plan, 9.9, unknown=[BA]) == [BA]
    plan.end(BA, 10.0)
    assert begin(plan, 10.1, stale=[AB]) == [AB]


def test_a_degraded_link_that_is_no_better_is_probed_less_often_but_twice_a_minute(plan):
    now_s, pauses = 0.0, []
    for _ in range(5):
        began = begin(plan, now_s, degraded=[AB])
        assert began == [AB]
        plan.end(AB, now_s, is_degraded=True)
        pause = next(pause for pause in range(100) if plan._may(AB, now_s + pause))
        pauses.append(pause)
        now_s += pause
    assert pauses == [10, 20, 30, 30, 30]
    plan.end(AB, now_s)
    assert begin(plan, now_s, degraded=[AB]) == [AB]


def test_a_way_is_broken_after_two_failures_in_a_row_and_tried_again(plan):
    assert begin(plan, unknown=[AB]) == [AB]
    plan.end(AB, 0.0, error="refused", has_way=False)
    assert (plan.error(AB), plan.is_broken(AB)) == ("refused", False)
    assert begin(plan, 1.9, unknown=[AB]) == []
    assert begin(plan, 2.0, unknown=[AB]) == [AB]
    plan.end(AB, 2.0, error="refused", has_way=False)
    assert plan.broken() == [AB]
    assert begin(plan, 5.9, unknown=[AB]) == []
    assert begin(plan, 6.0, unknown=[AB]) == [AB]
    plan.end(AB, 6.0)
    assert (plan.error(AB), plan.broken()) == ("", [])


def test_a_link_that_is_too_busy_to_be_probed_is_not_broken(plan):
    for now_s in (0.0, 10.0, 20.0):
        assert begin(plan, now_s, unknown=[AB]) == [AB]
        plan.end(AB, now_s, error="it waited behind others")
    assert (plan.error(AB), plan.broken()) == ("it waited behind others", [])
    assert begin(plan, 27.0, unknown=[AB]) == []


def test_a_probe_that_found_the_way_mends_it_though_it_failed_and_one_without_an_answer_says_nothing(plan):
    def probe(now_s, has_way):
        assert begin(plan, now_s, unknown=[AB]) == [AB]
        plan.end(AB, now_s, error="failed", has_way=has_way)
        return plan.is_broken(AB)

    assert [probe(step * 10.0, has_way) for step, has_way in enumerate((False, None, False, None))] == [0, 0, 1, 1]
    assert [probe(50.0 + step * 10.0, has_way) for step, has_way in enumerate((True, False, True, False))] == [0] * 4


def test_kv_that_gets_through_mends_a_way(plan):
    for now_s in (0.0, 10.0):
        assert begin(plan, now_s, unknown=[AB]) == [AB]
        plan.end(AB, now_s, error="refused", has_way=False)
    plan.works(AB)
    assert plan.broken() == []


def test_who_was_to_do_it_is_gone_and_somebody_else_may(plan):
    assert begin(plan, unknown=[AB]) == [AB]
    plan.withdraw(AB)
    assert plan.error(AB) == ""
    assert begin(plan, unknown=[AB]) == [AB]
    plan.gone("b")
    assert plan.running == frozenset()


@pytest.mark.parametrize("num_nodes", [8, 32])
def test_a_slow_node_is_probed_for_a_fifth_of_its_time_and_back_within_a_minute(plan, num_nodes):
    nodes = [f"n{number}" for number in range(num_nodes)]
    slow = {pair: 0.0 for other in nodes[1:] for pair in (("n0", other), (other, "n0"))}  # last heard of
    num_steps, took_s, mended_s = 0, 0.6, 300.0
    running: list[tuple[str, str]] = []
    now_s = num_running = 0
    while slow:
        now_s = num_steps * took_s
        for pair in running:
            plan.end(pair, now_s, is_degraded=now_s <= mended_s)
            slow[pair] = now_s
            if now_s > mended_s:
                del slow[pair]
        running = begin(plan, now_s, set(nodes), degraded=[pair for pair in slow if now_s - slow[pair] >= 10.0])
        num_running += bool(running) and now_s < mended_s
        num_steps += 1
        assert now_s < mended_s + 60.0
    assert num_running * took_s / mended_s < 0.22
