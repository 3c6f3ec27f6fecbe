"""The comparison of plans: what is compared, what is remembered from network to network, and what is said of it."""

import gzip
from collections import Counter
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from cluster.latency.distserve import DistServeHardware
from cluster.latency.hardware import Parallelism
from deploy.bench.plan_case_run import CaseRun, Effort, Stages, high_layout, low_layout
from deploy.bench.plan_cases import CASES, NETWORKS, QUICK_CASE, QUICK_NETWORK, lengths_of, topology_of
from deploy.bench.plan_measure import Measure
from deploy.bench.plan_plot import write_bars
from deploy.bench.plan_rows import (
    COLOCATED,
    HIGH,
    LOW,
    OURS,
    Interval,
    Reached,
    Row,
    markdown,
    read_rows,
    verdict,
    write_rows,
)
from deploy.planner.goodput.estimate import NOTHING
from deploy.planner.goodput.estimator import Estimator
from deploy.planner.goodput.evaluation import Answer, Ask
from deploy.planner.goodput.find_plans import Search
from deploy.planner.goodput.layout import sub_topology
from deploy.planner.goodput.question import Lengths, Question, Slos
from deploy.planning.memory import Memory

pytestmark = pytest.mark.unit

CHAT = CASES[0]
SLOW = next(network for network in NETWORKS if network.is_unequal)


def make_row(network=NETWORKS[0], **goodputs):
    """Of 10 GPUs each; requests a second by plan: `ours`, `high`, `low`, `colocated`, for each seed."""
    names = {"ours": OURS, "high": HIGH, "low": LOW, "colocated": COLOCATED}
    reached = {
        names[plan]: Reached(unit=f"{plan}'s", num_gpus=10, goodputs=found, obstacles=("tensor parallelism",))
        for plan, found in goodputs.items()
    }
    return Row(case="chat", network=network.name, is_unequal=network.is_unequal, reached=reached, seconds=1.0)


GOOD = make_row(ours=(12.0, 11.0), high=(6.0, 5.0), low=(8.0, 11.0), colocated=(10.0, 10.0))
LOST = make_row(SLOW, ours=(8.0, 8.1), high=(4.0, 4.0), low=(2.0, 2.0), colocated=(10.0, 10.1))


def test_an_interval_is_student_t():
    found = Interval.of([1.0, 2.0, 3.0])
    assert (found.mean, found.margin) == (2.0, pytest.approx(4.303 / 3**0.5))
    assert Interval.of([2.0]).margin == 0.0


def test_ratios_are_taken_seed_by_seed():
    assert GOOD.best_of((HIGH, LOW)) == LOW
    assert GOOD.ratio((HIGH, LOW)).mean == pytest.approx((12 / 8 + 11 / 11) / 2)
    nothing = make_row(ours=(1.0, 1.0), high=(0.0, 0.0), low=(0.0, 0.0), colocated=(1.0, 1.0))
    assert nothing.ratio((HIGH, LOW)) is None


def test_rows_that_are_lost_are_named_with_what_they_are_lost_to():
    lines = verdict([GOOD, LOST])
    assert lines[0] == f"chat, {SLOW.name}: {LOST.ratio([COLOCATED])} of colocated, colocated's"
    assert lines[1:] == [
        "all networks: 1.63 times DistServe's better plan, in the mean of 2 rows",
        "cables that are not equal: 2.01 times DistServe's better plan, in the mean of 1 row",
    ]
    assert verdict([GOOD])[0] == "no row is lost to any of the three"


def test_the_table_in_markdown_says_what_the_plans_are():
    lines = markdown([GOOD]).splitlines()
    assert lines[0] == (
        "| case | network | ours | DistServe high | DistServe low | colocated | ours / best other "
        "| ours / DistServe's better |"
    )
    assert lines[2].startswith("| chat | 10 Gbit/s | 1.15 ±0.64 | 0.55 ±0.64 | 0.95 ±1.9 | 1 ±0 |")
    assert "| chat | 10 Gbit/s | ours's (10) | high's (10) | low's (10) | colocated's (10) |" in lines
    assert lines[-1].startswith("- all networks: ")


def test_kept_rows_are_those_of_the_same_settings(tmp_path):
    file = tmp_path / "rows.json"
    assert read_rows(file, {"num_seeds": 2}) == []
    write_rows(file, [GOOD, LOST], {"num_seeds": 2})
    assert read_rows(file, {"num_seeds": 2}) == [GOOD, LOST]
    assert read_rows(file, {"num_seeds": 3}) == []


def test_a_slow_node_has_a_slow_cable_both_ways():
    topology = topology_of(CHAT, SLOW)
    assert [node.egress_bytes_per_s for node in topology.nodes] == [1.25e10, 1.25e10, 1.25e10, 1.25e9]
    assert topology.link("n0", "n1").beta_bytes_per_s == 1.25e10
    assert topology.link("n0", "n3").beta_bytes_per_s == topology.link("n3", "n0").beta_bytes_per_s == 1.25e9
    assert topology.link("n3", "n3").beta_bytes_per_s == 228e9


def test_longbench_is_cut_to_the_context(tmp_path):
    with gzip.open(tmp_path / "longbench_v1_lengths.csv.gz", "wt") as file:
        file.write("task,context_length_words,answer_tokens_opt\nqa,1000,5\nqa,9000,900\nqa,10,0\n")
    case = next(case for case in CASES if case.workload == "LongBench" and case.shape == "opt-66b")
    assert lengths_of(case, tmp_path).tolist() == [[1350, 5], [1800, 248], [14, 1]]


def make_question(network=NETWORKS[0], *, case=CHAT, num_lengths=64):
    topology = topology_of(case, network)
    hardware = DistServeHardware(case.shape)
    drawn = np.random.default_rng(0).integers(50, 1000, (num_lengths, 2)).astype(float)
    return Question(
        topology=topology,
        hardware={node.name: hardware for node in topology.nodes},
        lengths=Lengths(prompts=drawn[:, 0], outputs=drawn[:, 1] / 4),
        slos=Slos(ttft_s=0.25, tpot_s=0.1),
    )


def estimate(question):
    return Estimator(Search(question, lambda asks: []).catalogue, question.slos, question.request_bytes).evaluate


@pytest.fixture(scope="module")
def pairs():
    question = make_question()
    return low_layout(question, estimate(question))


def test_distserve_low_keeps_every_pair_on_one_node(pairs):
    prefill, decode = pairs.unit.pools
    assert prefill.num_instances == decode.num_instances == len(pairs.seats) // 2
    for first, second in zip(pairs.seats[::2], pairs.seats[1::2], strict=True):
        assert (first.pool.role, second.pool.role) == ("prefill", "decode")
        assert first.node == second.node
    used = Counter()
    for seat in pairs.seats:
        used[seat.node] += seat.pool.parallelism.num_gpus
    assert max(used.values()) <= 8


def test_distserve_high_is_the_same_whatever_the_cables_are():
    questions = make_question(), make_question(SLOW)
    layout, other = (high_layout(question, estimate(question)) for question in questions)
    assert [pool.role for pool in layout.unit.pools] == ["prefill", "decode"]
    assert sum(seat.pool.parallelism.num_gpus for seat in layout.seats) == layout.unit.num_gpus <= 32
    assert (other.unit, other.seats) == (layout.unit, layout.seats)
    assert layout.num_nodes == 4


def ask_of_a_node(pairs, **changes):
    return Ask(layout=replace(pairs, topology=sub_topology(pairs.topology, ["n0"])), at_most=10.0, **changes)


def test_what_happens_within_a_node_is_simulated_once(pairs):
    memory, asked = Memory(), []

    def evaluate(asks):
        asked.extend(asks)
        return [Answer(rate=None if ask.above >= 5.0 else 5.0, attainment=NOTHING) for ask in asks]

    remembering = memory.beside(evaluate)
    within, across = ask_of_a_node(pairs), Ask(layout=pairs, at_most=10.0)
    assert [each.rate for each in remembering([within, across])] == [5.0, 5.0]
    assert len(asked) == 2
    assert [each.rate for each in remembering([within, across])] == [5.0, 5.0]
    assert len(asked) == 3, "links have a part in the second"
    assert remembering([replace(within, above=4.0), replace(within, above=6.0)])[1].rate is None
    assert len(asked) == 3
    remembering([replace(within, phase="prefill")])
    assert len(asked) == 4


def test_that_it_did_not_reach_a_rate_says_nothing_of_lower_ones(pairs):
    memory, asked = Memory(), []

    def evaluate(asks):
        asked.extend(asks)
        return [Answer(rate=None, attainment=NOTHING) for ask in asks]

    remembering, ask = memory.beside(evaluate), ask_of_a_node(pairs, above=4.0)
    remembering([ask])
    remembering([replace(ask, above=5.0)])
    assert len(asked) == 1
    remembering([replace(ask, above=3.0)])
    assert len(asked) == 2


def test_on_another_network_only_what_sends_kv_is_measured_anew(pairs, monkeypatch):
    mixed = replace(pairs, seats=tuple(replace(it, pool=replace(it.pool, role="mixed")) for it in pairs.seats))
    measured = []

    def answer(setting, ask):
        measured.append(ask.layout)
        return Answer(rate=5.0, attainment=NOTHING, is_beyond=True)

    monkeypatch.setattr("deploy.bench.plan_measure.answer", answer)
    monkeypatch.setattr("deploy.bench.plan_measure.layout_bound", lambda *_: 10.0)
    setting = SimpleNamespace(with_seed=lambda seed: seed)
    measure = Measure(setting, SimpleNamespace(rates_of=None), 0.0, num_seeds=2)
    for _ in range(2):
        assert [measure.goodputs(each) for each in (mixed, pairs)] == [(5.0, 5.0)] * 2
    assert measured == [mixed, mixed, pairs, pairs]
    measure.forget_network()
    assert [measure.goodputs(each) for each in (mixed, pairs)] == [(5.0, 5.0)] * 2
    assert measured[4:] == [pairs, pairs]
    assert measure.num_beyond[mixed.seats] == measure.num_beyond[pairs.seats] == 2


def test_the_quick_case_is_small():
    assert topology_of(QUICK_CASE, NETWORKS[0]).nodes[0].num_gpus == 2
    assert Parallelism(2) in DistServeHardware(QUICK_CASE.shape).parallelisms()


def test_a_row_has_all_four_plans_measured_with_the_same_seeds(tmp_path):
    with gzip.open(tmp_path / "distserve_sharegpt_opt13b_rate16.csv.gz", "wt") as file:
        file.write("prompt_len,output_len\n" + "".join(f"{300 + 40 * at},{60 + 10 * at}\n" for at in range(12)))
    effort = Effort(num_seeds=2, interval_s=0.5, num_ttfts=1.0, search_interval_s=0.5, stages=Stages.NONE)
    told = []
    [row] = CaseRun(QUICK_CASE, tmp_path, effort).rows([QUICK_NETWORK], lambda *text: told.append(text))
    assert list(row.reached) == [OURS, HIGH, LOW, COLOCATED]
    for reached in row.reached.values():
        assert len(reached.goodputs) == 2
        assert min(reached.goodputs) > 0.0
        assert reached.num_gpus <= 4
    assert {network for network, _ in told} == {"25 Gbit/s"}


def test_bars_are_drawn_for_every_case(tmp_path):
    pytest.importorskip("matplotlib")
    write_bars(tmp_path / "bars.png", [GOOD, LOST, replace(GOOD, case="code")])
    assert (tmp_path / "bars.png").read_bytes().startswith(b"\x89PNG")
