"""`baton bench dispatch --cluster`: the same requests on a running cluster, by each dispatch policy in turns.

The policies change places in every other round (A B, B A, ...), so that what drifts on the machine meets both alike.
The prompts of a round are no other round's: nothing is found in a cache that another round has left there.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from cluster.pb import baton_pb2
from deploy.bench.clients import GrpcLoad
from deploy.bench.load import measure, run_load
from deploy.bench.outcome import Outcome
from deploy.bench.report import write_json
from deploy.client import connect, fetch_status
from deploy.errors import DeployError
from deploy.workload.arrivals import mean_rate, speed_up
from deploy.workload.prompts import PromptMaker
from deploy.workload.request import WorkloadError, WorkloadRequest
from deploy.workload.scaling import fit_to_context
from router.client import BatonClient
from router.timeouts import CALL_TIMEOUT_S

Figures = NDArray[np.float64]

_NUM_WARM_UP = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """`rate`: requests a second, in the trace's own pattern. `max_len` None: what the model takes."""

    address: str
    policies: Sequence[str]
    rate: float
    num_rounds: int
    max_len: int | None = None

    def compare(self, trace: str, requests: Sequence[WorkloadRequest], console: Console) -> "Compared":
        with connect(self.address) as stub:
            model = stub.GetModelInfo(baton_pb2.GetModelInfoRequest(), timeout=CALL_TIMEOUT_S)
        own_rate = mean_rate(requests)
        if own_rate is None:
            raise WorkloadError(f"{trace} has no arrival times")
        scaled, factor = fit_to_context(requests, self.max_len or model.max_model_len)
        paced = speed_up(scaled, self.rate / own_rate)
        console.print(f"{trace}: {len(paced)} requests, lengths times {factor:.3g}, {self.rate:g} a second")
        compared = Compared(trace=trace, length_factor=factor)
        asyncio.run(self._rounds(paced, model, compared, console))
        return compared

    async def _rounds(
        self, requests: list[WorkloadRequest], model: baton_pb2.ModelInfo, compared: "Compared", console: Console
    ) -> None:
        async with BatonClient(self.address) as router, GrpcLoad(self.address) as load:
            before = await router.set_dispatch_policy(self.policies[0])
            try:
                for number in range(self.num_rounds):
                    turns = list(enumerate(self.policies))
                    for at, policy in turns if number % 2 == 0 else reversed(turns):
                        await router.set_dispatch_policy(policy)
                        seed = 1 + number * len(turns) + at
                        outcomes = await self._round(load, requests, model, seed)
                        compared.add(policy, outcomes)
                        gaps_ms = second_tokens_ms(outcomes)
                        console.print(
                            f"round {number + 1}, {policy}: second token mean {gaps_ms.mean():.1f} ms, "
                            f"p99 {np.percentile(gaps_ms, 99):.1f} ms"
                        )
            finally:
                await router.set_dispatch_policy(before)

    async def _round(
        self, load: GrpcLoad, requests: list[WorkloadRequest], model: baton_pb2.ModelInfo, seed: int
    ) -> list[Outcome]:
        prompts = PromptMaker(model.vocab_size, model.eos_token_ids, seed).make(requests)
        for prompt in PromptMaker(model.vocab_size, model.eos_token_ids, -seed % (1 << 31)).make(
            requests[:_NUM_WARM_UP]
        ):
            await measure(load, prompt, 4)
        outcomes, _ = await run_load(load, requests, prompts, concurrency=None, on_done=lambda _: None)
        if errors := [outcome.error for outcome in outcomes if outcome.error]:
            raise DeployError(f"{len(errors)} of {len(outcomes)} requests failed: {errors[0]}")
        return outcomes


def second_tokens_ms(outcomes: Sequence[Outcome]) -> Figures:
    return 1e3 * np.array([outcome.itls_s[0] for outcome in outcomes if outcome.itls_s])


@dataclass(slots=True, kw_only=True)
class Compared:
    """All rounds of each policy."""

    trace: str
    length_factor: float
    rounds: dict[str, list[list[Outcome]]] = field(default_factory=dict)

    def add(self, policy: str, outcomes: list[Outcome]) -> None:
        self.rounds.setdefault(policy, []).append(outcomes)

    def figures(self) -> dict[str, dict[str, object]]:
        return {policy: _figures(rounds) for policy, rounds in self.rounds.items()}

    def change(self, policy: str, baseline: str) -> float:
        """Of the mean second token: -0.2 is 20 % less."""
        return float(self._changes(policy, baseline).mean())

    def error(self, policy: str, baseline: str) -> float:
        """How far off that may be, from how far the rounds are apart: a standard error; nan of one round."""
        changes = self._changes(policy, baseline)
        return float(changes.std(ddof=1) / np.sqrt(len(changes))) if len(changes) > 1 else float("nan")

    def _changes(self, policy: str, baseline: str) -> Figures:
        """[num_rounds]"""
        ours, theirs = (
            np.array([second_tokens_ms(one).mean() for one in self.rounds[it]]) for it in (policy, baseline)
        )
        return np.asarray(ours / theirs - 1.0)


def _figures(rounds: Sequence[Sequence[Outcome]]) -> dict[str, object]:
    outcomes = [outcome for one in rounds for outcome in one]
    gaps_ms = second_tokens_ms(outcomes)
    return {
        "mean_second_token_ms": float(gaps_ms.mean()),
        "p50_second_token_ms": float(np.percentile(gaps_ms, 50)),
        "p99_second_token_ms": float(np.percentile(gaps_ms, 99)),
        "mean_ttft_ms": float(1e3 * np.mean([outcome.ttft_s for outcome in outcomes])),
        "mean_e2el_ms": float(1e3 * np.mean([outcome.e2el_s for outcome in outcomes])),
        "mean_second_token_ms_of_rounds": [float(second_tokens_ms(one).mean()) for one in rounds],
    }


def print_compared(compared: Compared, baseline: str, console: Console) -> None:
    table = Table("policy", "second token mean, ms", "p50", "p99", "TTFT mean, ms", "E2EL mean, ms")
    for policy, figures in compared.figures().items():
        names = ("mean_second_token_ms", "p50_second_token_ms", "p99_second_token_ms", "mean_ttft_ms", "mean_e2el_ms")
        table.add_row(policy, *(f"{figures[name]:,.1f}" for name in names))
    console.print(table)
    for policy in compared.rounds:
        if policy != baseline:
            change, error = compared.change(policy, baseline), compared.error(policy, baseline)
            console.print(f"{policy} {change:+.1%} ± {error:.1%} mean second token against {baseline}")


def print_links(address: str, console: Console) -> None:
    """Between which nodes that was, as the router believes now."""
    for link in fetch_status(address).node_links:
        console.print(
            f"  {link.source_node} -> {link.target_node}: {link.transport}, "
            f"{link.alpha_s * 1e3:.2f} ms + bytes / {link.beta_bytes_per_s / 1e6:,.1f} MB/s, {link.state}"
        )


def keep(path: Path, all_compared: Sequence[Compared], replay: Replay) -> None:
    rows = [{"trace": one.trace, "length_factor": one.length_factor, "policies": one.figures()} for one in all_compared]
    write_json(path, {}, **asdict(replay), traces=rows)
