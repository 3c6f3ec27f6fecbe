"""Other roles for instances that run, and the watch that finds them."""

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from cluster.latency.hardware import Parallelism
from cluster.topology.topology import Node, Topology
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.layout import Seated
from deploy.planner.goodput.question import Lengths, Slos
from deploy.planner.goodput.resplit import _changes, find_resplit
from deploy.planner.goodput.unit import PoolPlan
from deploy.planning.live_workload import LiveWorkload, Totals, between, read_totals, stretched
from deploy.planning.watch import Watch, WatchConfig
from tests.unit.planner.goodput.factories import OPT_13B, estimated, make_question, make_topology, sharegpt_like

pytestmark = pytest.mark.unit

STRICT = Slos(ttft_s=0.4, tpot_s=0.035)


def seated(roles, node="n0"):
    numbers = dict.fromkeys(roles, 0)
    found = []
    for role in roles:
        pool = PoolPlan(role=role, parallelism=Parallelism(1), kind=OPT_13B.name)
        found.append(Seated(name=f"{role}-{numbers[role]}", pool=pool, node=node))
        numbers[role] += 1
    return found


def resplit(running, question, fixed=frozenset()):
    catalogue = Catalogue(question)
    return find_resplit(
        running, fixed, question.topology, catalogue.rates_of, question.request_bytes, estimated(question)
    )


def question_about(prompt, output):
    lengths = Lengths(prompts=np.full(50, float(prompt)), outputs=np.full(50, float(output)))
    return make_question(topology=make_topology(1, 8), lengths=lengths, slos=STRICT)


def test_long_prompts_want_more_instances_to_prefill():
    found = resplit(seated(["prefill"] + 5 * ["decode"]), question_about(1500, 8))
    assert found.best > 1.5 * found.current
    assert found.changes
    assert {change.before for change in found.changes} == {"decode"}
    assert {change.after for change in found.changes} <= {"prefill", "mixed"}


def test_what_is_best_already_stays():
    question = question_about(700, 100)
    first = resplit(seated(["prefill"] + 5 * ["decode"]), question)
    again = resplit(first.layout.seats, question)
    assert again.changes == ()
    assert again.best == again.current


def test_who_cannot_change_does_not():
    running = seated(["prefill"] + 5 * ["decode"])
    fixed = frozenset(seat.name for seat in running)
    assert resplit(running, question_about(1500, 8), fixed).changes == ()


def role_changes(running, roles):
    after = {seat.name: role for seat, role in zip(running, roles, strict=True)}
    return _changes({seat.name: seat.pool.role for seat in running}, after)


@pytest.mark.parametrize(
    ("before", "after", "order"),
    [
        ("prefill prefill decode", "mixed mixed mixed", ["prefill-0", "decode-0", "prefill-1"]),
        ("prefill decode decode", "mixed mixed mixed", ["decode-0", "decode-1", "prefill-0"]),
        ("prefill prefill decode", "decode mixed mixed", ["prefill-1", "decode-0", "prefill-0"]),
        ("prefill decode decode", "prefill decode prefill", ["decode-1"]),
        ("prefill prefill decode decode", "decode prefill prefill decode", ["decode-0", "prefill-0"]),
    ],
)
def test_flips_come_in_an_order_in_which_others_do_the_work(before, after, order):
    changes = role_changes(seated(before.split()), after.split())
    assert [change.instance for change in changes] == order


def test_what_no_order_of_flips_leads_to_is_not_proposed():
    """Either instance is the last that can do its work."""
    running = seated(["prefill", "decode"])
    assert role_changes(running, ["mixed", "mixed"]) is None
    assert resplit(running, question_about(700, 100)).changes == ()


METRICS = """# TYPE vllm:prompt_tokens counter
vllm:prompt_tokens_total{model_name="m"} 5000
# TYPE vllm:generation_tokens counter
vllm:generation_tokens_total{model_name="m"} 900
# TYPE vllm:time_to_first_token_seconds histogram
vllm:time_to_first_token_seconds_bucket{le="+Inf",model_name="m"} 50
vllm:time_to_first_token_seconds_count{model_name="m"} 50
vllm:time_to_first_token_seconds_sum{model_name="m"} 3
"""


def test_the_live_workload_is_what_came_between_two_looks():
    before, after = Totals(at_s=0.0), read_totals(METRICS, 25.0)
    assert between(before, after) == LiveWorkload(rate=2.0, prompt_tokens=100.0, output_tokens=18.0)
    assert between(before, after, least_requests=51) is None
    assert between(after, replace(before, at_s=30.0)) is None, "the router has begun anew"


def test_lengths_keep_their_spread_around_other_means():
    live = LiveWorkload(rate=1.0, prompt_tokens=2 * float(sharegpt_like().prompts.mean()), output_tokens=10.0)
    found = stretched(sharegpt_like(), live)
    assert found.prompts.mean() == pytest.approx(live.prompt_tokens, rel=0.01)
    assert found.outputs.min() >= 1


@dataclass
class FakeEyes:
    seats: list
    prompt_tokens: float
    now_s: float = 0.0
    flipped: list = field(default_factory=list)

    def totals(self):
        self.now_s += 30.0
        count = 4.0 * self.now_s
        return Totals(
            at_s=self.now_s, num_requests=count, prompt_tokens=count * self.prompt_tokens, output_tokens=count * 8
        )

    def topology(self):
        return Topology([Node(name="n0", num_gpus=len(self.seats))], np.zeros((1, 1)), np.full((1, 1), 1e11))

    def running(self):
        return self.seats

    def flip(self, instance, role):
        self.flipped.append((instance, role))
        self.seats = [
            replace(seat, pool=replace(seat.pool, role=role)) if seat.name == instance else seat for seat in self.seats
        ]


def test_a_watch_says_what_has_drifted_and_applies_it_when_it_may():
    said: list[str] = []
    eyes = FakeEyes(seated(["prefill", "decode", "decode", "decode"]), prompt_tokens=1500.0)
    config = WatchConfig(num_checks=2, is_applied=True, simulated_s=1.5, num_processes=0)
    watch = Watch(question_about(300, 100), eyes, frozenset(), config, said.append)
    for _ in range(2):
        watch.check()
    assert said == [], "the first look only begins, and one is not enough"
    watch.check()
    assert eyes.flipped
    assert any("requests/s of 1500 prompt and 8 output tokens" in line for line in said)
    assert any("-> " in line and "a flip" in line for line in said)
    assert any("only with a restart" in line for line in said)
    num_flipped = len(eyes.flipped)
    for _ in range(3):
        watch.check()
    assert len(eyes.flipped) == num_flipped, "nothing is left to be done"
