"""The simulator decides nothing: whatever is chosen in it, production code chooses."""

import ast
from pathlib import Path

import pytest

import deploy.simulator
from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.scheduler import Scheduler
from cluster.engine.waiting_queue import WaitingQueue
from cluster.instance.core import InstanceCore
from cluster.instance.inbound import Inbound
from cluster.instance.outbound import Outbound
from cluster.instance.pacer import Pacer
from cluster.links.slot_table import SlotTable
from deploy.simulator import simulate
from deploy.simulator.front import Front
from deploy.simulator.instance import Instance
from router.ledger import Ledger
from router.links.forecast import LiveForecast
from router.policies import DISPATCH_POLICIES, RESCHEDULING_POLICIES, ReschedulingConfig
from router.rescheduler import Rescheduler
from router.scheduler import Scheduler as RouterScheduler
from tests.simulated.clusters import Kept, cluster, workload

pytestmark = pytest.mark.simulated

FILES = sorted(Path(deploy.simulator.__file__).parent.glob("*.py"))

# What policies are asked, and what they answer with.
DECIDING = {"select", "plan", "pair", "decide", "schedule", "assign", "assign_next", "token_budget", "watermark_blocks"}
ANSWERS = {"Decision", "Move", "Assignment"}
PICKING = {"sorted", "min", "max", "sort", "heappush", "choice", "shuffle", "nsmallest", "nlargest"}
POLICIES = {"DispatchPolicy", "ReschedulingPolicy", "RolePolicy", "Forecast"}

# Numbers, never requests or instances: (file, function).
NUMBERS = {
    ("carousel.py", "catch_up"),
    ("clock.py", "run"),
    ("clock.py", "at"),
    ("clock.py", "in_background"),
    ("client.py", "told"),
    ("cluster.py", "__post_init__"),
    ("columns.py", "waited"),
    ("columns.py", "attainment"),
    ("columns.py", "figures"),
    ("columns.py", "_wait_statistics"),
    ("instance.py", "_put"),
    ("instance.py", "_lanes"),
    ("links.py", "_share"),
    ("links.py", "_change"),
    ("machine.py", "run"),
    ("prompts.py", "__getitem__"),
    ("refusals.py", "__init__"),
    ("refusals.py", "_max_prompt_tokens"),
    ("simulate.py", "_die"),
    ("stretch.py", "go_on"),
    ("stretch.py", "_see_peak"),
}


def functions(tree: ast.AST) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]


def called(node: ast.AST) -> set[str]:
    calls = [each.func for each in ast.walk(node) if isinstance(each, ast.Call)]
    return {
        call.id if isinstance(call, ast.Name) else call.attr
        for call in calls
        if hasattr(call, "id") or hasattr(call, "attr")
    }


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_the_simulator_has_no_policy_of_its_own(file):
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
            assert not bases & POLICIES, f"{file.name}: {node.name} is a policy"
            defined = {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            assert not defined & DECIDING, f"{file.name}: {node.name} decides by {defined & DECIDING}"
    for function in functions(tree):
        assert function.name not in DECIDING, f"{file.name}: {function.name}"
        assert not called(function) & ANSWERS, f"{file.name}: {function.name} makes {called(function) & ANSWERS}"
        if (file.name, function.name) not in NUMBERS:
            assert not called(function) & PICKING, f"{file.name}: {function.name} picks by {called(function) & PICKING}"


def test_no_exception_is_left_of_what_is_gone():
    there = {(file.name, function.name) for file in FILES for function in functions(ast.parse(file.read_text()))}
    assert there >= NUMBERS


@pytest.mark.parametrize("policy", sorted(DISPATCH_POLICIES))
@pytest.mark.parametrize("rescheduling", sorted(RESCHEDULING_POLICIES))
def test_everything_that_decides_is_what_runs_in_production(monkeypatch, policy, rescheduling):
    instances: list[Instance] = []
    fronts: list[Front] = []
    for kind, made in ((Instance, instances), (Front, fronts)):
        monkeypatch.setattr(kind, "__init__", _remembering(kind.__init__, made))
    config = ReschedulingConfig(policy=rescheduling)
    simulate(cluster("pdm", policy=policy, rescheduling=config), workload(0, 10, 20.0), recorder=Kept())
    assert len(instances) == 3
    for it in instances:
        scheduler = it.core._scheduler
        parts = (it.core, scheduler, scheduler.block_manager, scheduler._roster.waiting, it.core._engine, it.slots)
        assert [*map(type, parts)] == [InstanceCore, Scheduler, BlockManager, WaitingQueue, Engine, SlotTable]
        assert [type(it.core._outbound), type(it.core._outbound._pacer)] == [Outbound, Pacer]
        assert type(it.core._inbound) is Inbound
    (front,) = fronts
    parts = (front._ledger, front.scheduler, front.scheduler.policy, front.scheduler.forecast, front._rescheduler)
    expected = [Ledger, RouterScheduler, DISPATCH_POLICIES[policy], LiveForecast, Rescheduler]
    assert [*map(type, parts)] == expected
    assert type(front._rescheduler._policy) is RESCHEDULING_POLICIES[rescheduling]


def _remembering(make, made):
    def init(self, *args, **options):
        made.append(self)
        make(self, *args, **options)

    return init
