"""`python -m tests.soak.migrations --migrations 10000`: moves requests about at random for as long as it takes.

Real processes with the bundled model: three instances, and a router whose clients keep them loaded. Whatever request is
picked goes to whatever other instance, several at a time, through the operators' call. Every output must be that of an
undisturbed run; in the end nothing is held by anybody, and memory, descriptors and threads have not grown.
"""

import argparse
import asyncio
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import grpc

from cluster.pb import baton_pb2
from tests.integration.local_cluster import LocalCluster
from tests.soak.resources import Sample, growth, sample, settled, slope

NUM_INSTANCES = 3
NUM_CLIENTS = 12
NUM_MIGRATORS = 4
NUM_SAMPLES = 60
MAX_MEMORY_GROWTH_KIB = 16 << 10
PATIENCE_S = 30.0  # with a machine that does something else for a while: that is not what is tested
SETTLING_MIGRATIONS = 2000  # fewer say nothing about memory
_FIRST_TOKENS = 2

PROMPTS = ("Once upon a time there was", "The old lighthouse " * 8, "In the morning the children went " * 24)
# Greedy and sampled, short and long: what is asked for, again and again.
ASKED = tuple(
    (prompt, {"max_tokens": max_tokens, "ignore_eos": True, "temperature": temperature, "seed": 11})
    for prompt in PROMPTS
    for max_tokens, temperature in ((96, 0.0), (256, 0.9))
)

Expected = tuple[tuple[int, ...], ...]


class SoakFailed(AssertionError):
    """Why."""


@dataclass(slots=True, kw_only=True)
class Report:
    """`refusals`: handovers that did not come about, by reason. `samples` are by process."""

    num_migrations: int = 0
    num_outputs: int = 0
    seconds: float = 0.0
    refusals: Counter[str] = field(default_factory=Counter)
    errors: list[str] = field(default_factory=list)
    samples: dict[str, list[Sample]] = field(default_factory=dict)

    @property
    def has_settled(self) -> bool:
        return self.num_migrations >= SETTLING_MIGRATIONS

    def lines(self) -> list[str]:
        out = [
            f"{self.num_migrations:,} migrations in {self.seconds:.0f} s ({self.num_migrations / self.seconds:.0f}/s), "
            f"{sum(self.refusals.values())} did not come about, {self.num_outputs:,} outputs, all of them right"
        ]
        out += [f"  {count} x {reason}" for reason, count in self.refusals.most_common(5)]
        for name, samples in self.samples.items():
            late = settled(samples)
            last = late[-1]
            out.append(
                f"  {name}: {last.memory_kib / 1024:.1f} MiB, after the warm-up {slope(late, 'memory_kib'):+.0f} KiB "
                f"per 1,000 migrations; {last.num_fds} descriptors ({last.num_fds - late[0].num_fds:+d}), "
                f"{last.num_threads} threads ({last.num_threads - late[0].num_threads:+d})"
            )
        return out


class Soak:
    def __init__(self, cluster: LocalCluster, num_migrations: int, seed: int, show: Callable[[str], None]) -> None:
        self._cluster = cluster
        self._wanted = num_migrations
        self._random = random.Random(seed)
        self._show = show
        self._movable: dict[str, str] = {}  # requests with tokens out, and the instance that had each last, if known
        self._moving: set[str] = set()
        self._has_movable = asyncio.Event()
        self._is_over = asyncio.Event()
        self._num_requests = 0
        self.report = Report()

    async def run(self) -> Report:
        """Raises SoakFailed."""
        expected = await self._undisturbed()
        start_s = time.monotonic()
        self._sample()
        async with asyncio.TaskGroup() as tasks:
            for _ in range(NUM_CLIENTS):
                tasks.create_task(self._ask(expected))
            for _ in range(NUM_MIGRATORS):
                tasks.create_task(self._migrate())
        self._sample()
        self.report.seconds = time.monotonic() - start_s
        await self._until_empty()
        self._judge()
        return self.report

    async def _undisturbed(self) -> Expected:
        """All of it on one instance, which has nobody to give it to."""
        others = list(self._cluster.infos)[1:]
        for name in others:
            async for _ in self._cluster.client.drain(name):
                pass
        complete = self._cluster.client.complete
        outputs = await asyncio.gather(*(complete(prompt, **options) for prompt, options in ASKED))
        for name in others:
            async for _ in self._cluster.client.drain(name, undo=True):
                pass
        return tuple(output.token_ids for output in outputs)

    async def _ask(self, expected: Expected) -> None:
        while not self._is_over.is_set():
            index = self._random.randrange(len(ASKED))
            self._num_requests += 1
            got = await self._stream(f"soak-{self._num_requests}", index)
            self.report.num_outputs += 1
            if got != expected[index]:
                self._fail(f"{ASKED[index]}: {_difference(got, expected[index])}")

    async def _stream(self, request_id: str, index: int) -> tuple[int, ...]:
        prompt, options = ASKED[index]
        token_ids: list[int] = []
        try:
            async for delta in self._cluster.client.generate(prompt, request_id=request_id, **options):
                token_ids += delta.token_ids
                if len(token_ids) >= _FIRST_TOKENS:
                    self._movable.setdefault(request_id, "")
                    self._has_movable.set()
        except grpc.aio.AioRpcError as error:
            self._fail(f"{request_id}: {error.code().name}: {error.details()}")
        finally:
            self._movable.pop(request_id, None)
        return tuple(token_ids)

    async def _migrate(self) -> None:
        while not self._is_over.is_set():
            await self._has_movable.wait()
            idle = [request_id for request_id in self._movable if request_id not in self._moving]
            if not idle:
                self._has_movable.clear()
                continue
            request_id = self._random.choice(idle)
            there = [name for name in self._cluster.infos if name != self._movable[request_id]]
            self._moving.add(request_id)
            await self._move(request_id, self._random.choice(there))
            self._moving.remove(request_id)
            self._has_movable.set()

    async def _move(self, request_id: str, instance: str) -> None:
        try:
            moved = await self._cluster.client.migrate(request_id, instance)
        except grpc.aio.AioRpcError as error:
            self.report.refusals[(error.details() or "").replace(request_id, "REQUEST")] += 1
            return
        if request_id in self._movable:
            self._movable[request_id] = moved.target
        self._count()

    def _count(self) -> None:
        report = self.report
        report.num_migrations += 1
        if report.num_migrations % max(1, self._wanted // NUM_SAMPLES) == 0:
            self._sample()
        if report.num_migrations % max(1, self._wanted // 10) == 0:
            self._show(f"{report.num_migrations:,} migrations, {report.num_outputs:,} outputs")
        if report.num_migrations >= self._wanted:
            self._end()

    def _sample(self) -> None:
        pids = {name: info.pid for name, info in self._cluster.infos.items()}
        for name, pid in {**pids, "router and clients": os.getpid()}.items():
            self.report.samples.setdefault(name, []).append(sample(pid, self.report.num_migrations))

    def _end(self) -> None:
        self._is_over.set()
        self._has_movable.set()  # whoever waits for it is to look

    def _fail(self, error: str) -> None:
        self.report.errors.append(error)
        self._end()

    async def _until_empty(self) -> None:
        with suppress(TimeoutError):
            await self._cluster.until_empty()
            return
        self.report.errors += [f"left behind: {_held(it)}" for it in (await self._cluster.client.status()).instances]

    def _judge(self) -> None:
        if self.report.has_settled:
            self.report.errors += growth(self.report.samples, MAX_MEMORY_GROWTH_KIB)
        if self.report.errors:
            raise SoakFailed("\n".join(self.report.errors))


def _difference(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    pairs = enumerate(zip(got, expected, strict=False))
    at = next((at for at, (one, other) in pairs if one != other), min(len(got), len(expected)))
    return f"{len(got)} tokens instead of {len(expected)}, right up to {at}"


def _held(it: baton_pb2.InstanceStatus) -> str:
    return (
        f"{it.instance} has {it.num_sequences} sequences, {it.num_reserved_blocks} reserved and "
        f"{it.num_leaked_blocks} leaked blocks, {it.num_blocks - it.num_free_blocks} blocks in use"
    )


async def soak(num_migrations: int, seed: int, show: Callable[[str], None] = lambda line: None) -> Report:
    """Raises SoakFailed."""
    patience = {"router": {"suspect_after_s": PATIENCE_S}, "front_timeout_s": PATIENCE_S}
    async with LocalCluster(num_prefill=0, num_decode=0, num_mixed=NUM_INSTANCES, **patience) as cluster:
        return await Soak(cluster, num_migrations, seed, show).run()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--migrations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        report = asyncio.run(soak(options.migrations, options.seed, lambda line: print(line, flush=True)))
    except SoakFailed as failure:
        print(failure, file=sys.stderr)
        return 1
    print(*report.lines(), "every instance holds zero sequences, zero reserved and zero leaked blocks", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
