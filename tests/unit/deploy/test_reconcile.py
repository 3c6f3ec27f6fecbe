import pytest

from deploy.reconcile import Life, Observed, gone, next_retry_s, running, started, to_create

pytestmark = pytest.mark.unit


def deaths(count, *, run_s=0.0):
    """The last observation after so many lives of `run_s`, and the time."""
    now_s, member = 0.0, None
    for _ in range(count):
        member = gone(running(started(member, now_s), now_s), now_s + run_s)
        now_s = member.retry_at_s
    return member


def test_what_was_never_made_is_to_be_made():
    assert to_create(["a", "b"], {"a": started(None, 0.0)}, 0.0) == ["b"]


def test_what_is_gone_is_made_again_after_a_wait():
    observed = {"a": deaths(1)}
    assert next_retry_s(observed) == 0.5
    assert to_create(["a"], observed, 0.4) == []
    assert to_create(["a"], observed, 0.5) == ["a"]


def test_nothing_is_waited_for_while_all_run():
    observed = {"a": Observed(life=Life.RUNNING, since_s=0.0)}
    assert to_create(["a"], observed, 100.0) == []
    assert next_retry_s(observed) is None


def test_each_quick_death_doubles_the_wait_up_to_a_limit():
    waits = [(member := deaths(count)).retry_at_s - member.since_s for count in range(1, 9)]
    assert waits == [0.5, 1, 2, 4, 8, 16, 30, 30]


def test_a_long_life_is_forgiven():
    assert deaths(5, run_s=60.0).num_deaths == 1
