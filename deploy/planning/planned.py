"""A plan as a deployment's YAML: pools anew, and everything else as it was."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from cluster.role import InstanceRole
from cluster.spec.deployment import Deployment
from cluster.spec.pool import Pool
from deploy.errors import InputError
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.plans import Plan, Plans
from deploy.planner.goodput.question import Question, Slos
from deploy.planner.goodput.runnable import obstacles
from deploy.planner.goodput.unit import PoolPlan
from deploy.roles import ROLE_POLICIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """`on_gpu`: else instances have their CPUs, and engines stay as they are but for their steps.

    `model_shape`: planned for instead of the deployment's own model.
    """

    deployment: Deployment
    question: Question
    on_gpu: bool
    model_shape: str | None = None

    def about(self) -> list[str]:
        """For what it was planned, which the deployment's file may not be for."""
        devices = dict.fromkeys(each.name.rpartition("/")[0] for each in self.question.hardware.values())
        path, on = self.deployment.spec.model.path, f"on {', '.join(devices)}"
        lengths = self.question.lengths
        prompt, output = (float(np.median(tokens)) for tokens in (lengths.prompts, lengths.outputs))
        usual = f"the median request has {prompt:.0f} prompt and {output:.0f} output tokens"
        if self.model_shape is None:
            return [f"planned for the model in {path} {on}", usual]
        needs = f"spec.model.path is still {path}: `baton up` needs that model there"
        return [f"planned for {self.model_shape} {on}; {needs}", usual]

    def yaml(self, plan: Plan) -> str:
        """What `cluster.spec` reads. InputError: a deployment's file cannot say it."""
        if plan.whole.has_pp:
            raise InputError("a deployment's file cannot ask for pipeline parallelism yet")
        names: Counter[str] = Counter()
        pools = []
        for pool in plan.whole.pools:
            number = names[pool.role]
            names[pool.role] += 1
            pools.append(self._pool(pool, pool.role if not number else f"{pool.role}{number + 1}"))
        data = self.deployment.model_dump(mode="json", exclude_unset=True)
        data["spec"]["pools"] = pools
        data["spec"]["slos"] = _slos(self.question.slos)
        lines = [*summary(plan, self.question), *self.about(), "placed so by the planner; `baton up` places anew:"]
        lines += [f"  {', '.join(nodes)}: {held}" for held, nodes in places(plan).items()]
        return "".join(f"# {line}\n" for line in lines) + yaml.safe_dump(data, sort_keys=False)

    def _pool(self, pool: PoolPlan, name: str) -> dict[str, Any]:
        base = self._base(pool.role)
        data = base.model_dump(mode="json", exclude_unset=True)
        engine, resources = dict(data.get("engine", {})), dict(data.get("resources", {}))
        rates = Catalogue(self.question).rates_of(pool)
        planned = self.question.engine
        if self.on_gpu:  # what was simulated: instances would try smaller steps than planned with
            role = ROLE_POLICIES[InstanceRole(pool.role)]
            budget = role.token_budget(rates.saturation_tokens, planned.max_num_seqs)
            engine["max_num_batched_tokens"] = pool.token_budget or budget
            engine["max_num_seqs"] = min(planned.max_num_seqs, engine["max_num_batched_tokens"])
        else:  # instances measure by themselves how much a step takes, and may change their roles
            engine |= self._as_simulated(base)
            engine.pop("max_num_batched_tokens", None)
            if pool.token_budget is not None:
                engine["max_num_batched_tokens"] = pool.token_budget
        if self.on_gpu:
            hardware = rates.hardware
            engine["tensor_parallel_size"] = pool.parallelism.tp
            engine["kv_cache_memory_bytes"] = int(rates.num_kv_tokens * hardware.kv_bytes_per_token)
            engine["block_size"] = self.question.engine.block_size
            resources["gpus"] = float(pool.parallelism.num_gpus)
            resources.pop("memory", None)
        found = {"name": name, "role": pool.role, "replicas": pool.num_instances}
        return found | {key: value for key, value in (("resources", resources), ("engine", engine)) if value}

    def _as_simulated(self, base: Pool) -> dict[str, Any]:
        """All instances have the engine of the first pool: what of it the base has otherwise."""
        first = self.deployment.spec.pools[0].engine
        names = ("max_num_seqs", "block_size", "kv_cache_memory_bytes")
        return {name: getattr(first, name) for name in names if getattr(first, name) != getattr(base.engine, name)}

    def _base(self, role: str) -> Pool:
        pools = self.deployment.spec.pools
        return next((pool for pool in pools if pool.role == role), pools[0])


def choose(plans: Plans) -> tuple[Plan, str]:
    """What is written, and which of the plans that is: one that `baton up` can run if there is one.

    InputError: there are only plans that a file cannot say.
    """
    needs = " and ".join(obstacles(plans.best.whole))
    if plans.runnable is plans.best:
        return plans.best, "the best plan"
    if plans.runnable is not None:
        return plans.runnable, f"the best plan that baton up can run; the best of all needs {needs}"
    others = sorted((plan for plan in (plans.mixed, plans.disaggregated) if plan), key=lambda plan: -plan.per_gpu)
    said = [plan for plan in (plans.best, *others) if not plan.whole.has_pp]
    if not said:
        raise InputError(
            "nothing is written: all plans need pipeline parallelism, which no deployment's file can ask for"
        )
    which = "the best plan" if said[0] is plans.best else "the best plan without pipeline parallelism"
    return said[0], f"{which}; baton up cannot run it, as it needs {' and '.join(obstacles(said[0].whole))}"


def places(plan: Plan) -> Mapping[str, list[str]]:
    """Nodes, by what they hold."""
    found: dict[str, list[str]] = {}
    for node, pools in plan.layout.per_node().items():
        held = " + ".join(f"{number} × {pool.role} {pool.parallelism}" for pool, number in sorted(pools.items()))
        found.setdefault(held, []).append(node)
    return found


def summary(plan: Plan, question: Question) -> list[str]:
    """What was found, in a few lines."""
    slos, attainment = question.slos, plan.attainment
    limits = []
    if slos.ttft_s is not None:
        limits.append(f"TTFT {slos.ttft_s * 1e3:g} ms: {attainment.ttft:.1%}")
    if slos.tpot_s is not None:
        limits.append(f"TPOT {slos.tpot_s * 1e3:g} ms: {attainment.tpot:.1%}")
    total = sum(node.num_gpus for node in question.topology.nodes)
    lines = [
        f"{plan.whole}, {plan.num_gpus} of {total} GPUs",
        f"predicted: {plan.goodput:.4g} requests/s{_spread(plan)}, {plan.per_gpu:.3g} per GPU, "
        f"{attainment.both:.1%} within the SLOs ({', '.join(limits)})",
    ]
    if attainment.both < slos.attainment - 1e-9:
        lines.append(
            f"{slos.attainment:.0%} are asked for: it met that in the search, not in longer simulations; "
            "a plan for a slightly higher rate has more room"
        )
    if plan.is_beyond:
        lines.append("more still met the SLOs in the simulations, or they were too short to tell that it cannot last")
    if plan.num_checked_gpus < plan.num_gpus:
        lines.append(f"simulated together: {plan.num_checked_gpus} GPUs of it, which stand for all")
    if found := obstacles(plan.whole):
        lines.append(f"baton up cannot run it yet: {' and '.join(found)}")
    return lines


def _spread(plan: Plan) -> str:
    """By how much other requests would have given another mean: one standard error."""
    return f" ±{plan.standard_error:.2g} ({plan.num_seeds} seeds)" if plan.standard_error else ""


def _slos(slos: Slos) -> dict[str, float]:
    found = {"attainment": slos.attainment}
    if slos.ttft_s is not None:
        found["ttft_ms"] = slos.ttft_s * 1e3
    if slos.tpot_s is not None:
        found["tpot_ms"] = slos.tpot_s * 1e3
    return found
