"""What processes hold: memory, file descriptors and threads, sampled, and whether that grows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """`memory_kib`: anonymous memory; KV memory, which fills once as its blocks are first used, is not in it."""

    num_migrations: int
    memory_kib: int
    num_fds: int
    num_threads: int


def sample(pid: int, num_migrations: int) -> Sample:
    process = Path("/proc") / str(pid)
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    return Sample(
        num_migrations=num_migrations,
        memory_kib=int(status["RssAnon"].split()[0]),
        num_fds=len(list((process / "fd").iterdir())),
        num_threads=int(status["Threads"]),
    )


def slope(samples: Sequence[Sample], name: str) -> float:
    """Growth per 1,000 migrations, by least squares."""
    counts, values = [it.num_migrations / 1000 for it in samples], [getattr(it, name) for it in samples]
    middle, average = mean(counts), mean(values)
    spread = sum((count - middle) ** 2 for count in counts)
    if not spread:
        return 0.0
    return float(sum((x - middle) * (y - average) for x, y in zip(counts, values, strict=True)) / spread)


def settled(samples: Sequence[Sample]) -> list[Sample]:
    """After the warm-up: the first third fills caches, pools and what is retained for a while."""
    return list(samples[len(samples) // 3 :])


def growth(samples: Mapping[str, Sequence[Sample]], max_memory_kib: float, max_others: int = 4) -> list[str]:
    """What has grown since the warm-up by more than that, by process; empty when all is flat."""
    out = []
    for name, every in samples.items():
        late = settled(every)
        span = (late[-1].num_migrations - late[0].num_migrations) / 1000
        if (grown_kib := slope(late, "memory_kib") * span) > max_memory_kib:
            out.append(f"{name}: {grown_kib:,.0f} KiB of memory")
        for what in ("num_fds", "num_threads"):
            if (more := getattr(late[-1], what) - getattr(late[0], what)) > max_others:
                out.append(f"{name}: {more} {what}")
    return out
