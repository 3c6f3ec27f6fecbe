"""Proof, layer 1: every interleaving of a small world, and the traps that the rules were made against."""

import pytest

from tests.exhaustive.budget import Budget
from tests.exhaustive.configurations import QUICK
from tests.exhaustive.mutations import MUTATIONS, Mutation
from tests.exhaustive.search import Search
from tests.exhaustive.trace import tell
from tests.exhaustive.world import World

pytestmark = pytest.mark.simulated


@pytest.mark.parametrize("budget", QUICK, ids=str)
def test_every_state_keeps_the_laws_and_can_still_end_cleanly(budget: Budget) -> None:
    world = World()
    outcome = Search(world, budget).run()
    assert outcome.counterexample is None, "\n" + tell(world, outcome.counterexample)
    assert outcome.is_complete
    assert outcome.num_ends > 0


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda it: it.name)
def test_without_the_rule_the_search_finds_its_trap(mutation: Mutation) -> None:
    with mutation.applied():
        world = World(forgets_lives=mutation.forgets_lives)
        outcome = Search(world, mutation.budget).run()
        assert outcome.counterexample is not None, f"nothing found in {outcome.num_states} states"
        print(f"{mutation.name} ({mutation.budget}):\n{tell(world, outcome.counterexample)}")
        assert outcome.counterexample.trace


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda it: it.name)
def test_with_the_rule_the_same_world_is_sound(mutation: Mutation) -> None:
    outcome = Search(World(), mutation.budget).run(max_seconds=6)
    assert outcome.counterexample is None
