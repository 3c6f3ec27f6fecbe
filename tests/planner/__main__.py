"""`make test-planner`: what the planner claims, by simulation. Exits with 1 when anything does not hold.

`python -m tests.planner [PART...]` runs only these parts.
"""

import sys
import time
from collections.abc import Callable
from functools import partial

from tests.planner import anchor, bounds, limits
from tests.planner.questions import FILE, FOLDER

PARTS: dict[str, Callable[[Callable[[str], None]], bool]] = {
    "anchor": anchor.prove,
    "bounds": bounds.prove,
    "opt-13b": partial(limits.prove, model="opt-13b"),
    "opt-66b": partial(limits.prove, model="opt-66b"),
}


def main(names: list[str]) -> int:
    if unknown := set(names) - set(PARTS):
        print(f"there is no part {min(unknown)}; there are {', '.join(PARTS)}", file=sys.stderr)
        return 2
    if not (FOLDER / FILE).exists():
        print(f"nothing is proved: {FOLDER / FILE} is not there; BATON_TRACES says where the traces are")
        return 0
    failed = [name for name in names or PARTS if not _run(name)]
    print(f"does not hold: {', '.join(failed)}" if failed else "all of it holds")
    return 1 if failed else 0


def _run(name: str) -> bool:
    start_s = time.monotonic()
    holds = PARTS[name](partial(print, flush=True))
    print(f"{name} {'holds' if holds else 'DOES NOT HOLD'} ({time.monotonic() - start_s:.0f} s)\n", flush=True)
    return holds


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
