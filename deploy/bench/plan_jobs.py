"""Cases of the comparison, each in a process, with what they say and find on its way as it comes."""

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deploy.bench.plan_case_run import CaseRun, Effort
from deploy.bench.plan_cases import Case, Network
from deploy.bench.plan_rows import Row
from deploy.errors import DeployError


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    case: Case
    networks: tuple[Network, ...]
    folder: Path
    effort: Effort


def run_jobs(jobs: Sequence[Job], num_processes: int, say: Callable[[str], None]) -> Iterator[Row]:
    """Rows as they are found. The error of a job is raised once all that could be found was."""
    context = multiprocessing.get_context("spawn")
    told: Any = context.SimpleQueue()  # what is put there is there: a job's words come before its end
    with ProcessPoolExecutor(num_processes, context, _begin, (told,)) as pool:
        futures = [pool.submit(_run, job) for job in jobs]
        for future in futures:
            future.add_done_callback(lambda _: told.put(None))
        num_over = 0
        while num_over < len(jobs):
            match told.get():
                case None:
                    num_over += 1
                case Row() as row:
                    yield row
                case text:
                    say(text)
    try:
        for future in futures:
            future.result()
    except BrokenProcessPool as error:
        raise DeployError("a process of the comparison died; it may have run out of memory") from error


_told: Any = None  # of this process, when it is a worker


def _begin(told: Any) -> None:
    global _told
    _told = told


def _run(job: Job) -> None:
    run = CaseRun(job.case, job.folder, job.effort)
    for row in run.rows(job.networks, lambda network, text: _told.put(f"{job.case.name}, {network}: {text}")):
        _told.put(row)
