"""`make test-exhaustive`: the full search, and the five mutations with their traces. Fails when anything surprises."""

import sys
import time

from tests.exhaustive.budget import Budget
from tests.exhaustive.configurations import FULL, FULL_SECONDS, FULL_SECONDS_IN_ALL
from tests.exhaustive.mutations import MUTATIONS, Mutation
from tests.exhaustive.search import Outcome, Search
from tests.exhaustive.trace import tell
from tests.exhaustive.world import World

_ROW = "{:<78} {:>9} {:>11} {:>6} {:>7}  {}"


def main() -> int:
    began = time.process_time()
    print(_ROW.format("may go wrong", "states", "transitions", "depth", "CPU s", ""), flush=True)
    are_sound = [_search(budget, began) for budget in FULL]
    are_red = [_mutate(mutation) for mutation in MUTATIONS]
    return 0 if all(are_sound) and all(are_red) else 1


def _search(budget: Budget, began: float) -> bool:
    seconds = min(FULL_SECONDS, FULL_SECONDS_IN_ALL - (time.process_time() - began))
    world = World()
    outcome = Search(world, budget).run(max_seconds=seconds)
    print(_row(str(budget), outcome), flush=True)
    if outcome.counterexample is not None:
        print(tell(world, outcome.counterexample))
    return outcome.counterexample is None


def _mutate(mutation: Mutation) -> bool:
    with mutation.applied():
        world = World(forgets_lives=mutation.forgets_lives)
        outcome = Search(world, mutation.budget).run(max_seconds=FULL_SECONDS)
        print("\n" + _row(f"{mutation.name} ({mutation.budget})", outcome))
        if outcome.counterexample is None:
            print("  NOT FOUND")
            return False
        print(tell(world, outcome.counterexample), flush=True)
    return True


def _row(name: str, outcome: Outcome) -> str:
    if outcome.counterexample is not None:
        end = "COUNTEREXAMPLE"
    else:
        end = "complete" if outcome.is_complete else "bounded: laws only"
    return _ROW.format(name, outcome.num_states, outcome.num_transitions, outcome.depth, f"{outcome.seconds:.1f}", end)


if __name__ == "__main__":
    sys.exit(main())
