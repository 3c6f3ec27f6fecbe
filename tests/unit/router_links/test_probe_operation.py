import pytest

from router.errors import InvalidRequest, OperationRefused
from router.links import probe_operation
from router.links.probe_operation import probe_all
from tests.unit.router_links.fake_nodes import FakeNodes

pytestmark = pytest.mark.unit


async def test_progress_is_told_until_every_link_has_been_measured() -> None:
    nodes = FakeNodes("a", "b")
    steps = probe_all(nodes.links, 0.0)
    told = [await anext(steps)]
    for _ in range(2):
        nodes.act()
        nodes.answer_all()
        told.append(await anext(steps))
    with pytest.raises(StopAsyncIteration):
        await anext(steps)
    assert [(step.num_done, step.done) for step in told] == [(0, False), (1, False), (2, True)]
    assert {(step.num_links, step.num_failed) for step in told} == {(2, 0)}
    assert {row.state for row in nodes.links.link_rows()} == {"good"}


async def test_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_operation, "PROGRESS_INTERVAL_S", 0.01)
    steps = probe_all(FakeNodes("a", "b").links, 0.0)
    assert await anext(steps) == await anext(steps)


async def test_who_stops_listening_has_nothing_more_probed() -> None:
    nodes = FakeNodes("a", "b")
    nodes.probe_all()
    steps = probe_all(nodes.links, 1.0)
    await anext(steps)
    await steps.aclose()
    assert nodes.act() == []


async def test_without_links_there_is_nothing_to_measure() -> None:
    with pytest.raises(OperationRefused, match="it takes two instances"):
        await anext(probe_all(FakeNodes("a").links, 0.0))


@pytest.mark.parametrize("budget_s", [-1.0, 61.0, float("nan")])
async def test_a_budget_that_makes_no_sense_is_refused(budget_s: float) -> None:
    with pytest.raises(InvalidRequest, match="budget_s"):
        await anext(probe_all(FakeNodes("a", "b").links, budget_s))
