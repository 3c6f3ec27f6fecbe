"""Thousands of worlds: `make test-worlds`, or `python -m tests.simulated.many_worlds --seed 1234` for one again."""

import argparse
import random
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.simulated.chaos import chaos
from tests.simulated.world import World

SHAPES = (
    {"num_prefill": 2, "num_decode": 2, "num_mixed": 1},
    {"num_prefill": 1, "num_decode": 3},
    {"num_prefill": 0, "num_decode": 0, "num_mixed": 3},
    {"num_prefill": 1, "num_decode": 1},
)


def make_world(seed: int) -> World:
    drawn = random.Random(seed)
    shape = drawn.choice(SHAPES)
    return World(seed, **shape, num_blocks=drawn.choice([12, 24, 60]), max_num_seqs=drawn.choice([3, 8]))


def failure_of(seed: int) -> str | None:
    try:
        chaos(make_world(seed))
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return None


def run_all(num_seeds: int, num_processes: int) -> int:
    """How many failed; says so as they do."""
    num_failed = 0
    with ProcessPoolExecutor(num_processes) as pool:
        for seed, failure in enumerate(pool.map(failure_of, range(num_seeds), chunksize=20)):
            if failure is not None:
                num_failed += 1
                print(f"\nseed {seed}: {failure}", flush=True)
            if (seed + 1) % 100 == 0:
                print(f"\r{seed + 1} of {num_seeds} worlds, {num_failed} failed", end="", flush=True)
    print()
    return num_failed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--seed", type=int, help="only this one, and with its traceback")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        chaos(make_world(arguments.seed))
        return 0
    return min(1, run_all(arguments.seeds, arguments.processes))


if __name__ == "__main__":
    sys.exit(main())
