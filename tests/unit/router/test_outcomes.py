"""Each request is counted once, as it ends."""

import pytest
from prometheus_client import CollectorRegistry

from cluster.engine.sequence import FinishReason
from router.errors import RequestAborted
from router.outcomes import OutcomeMetrics
from tests.unit.router.test_router import Case, Wire, always, make_case, make_request, next_of, read

pytestmark = pytest.mark.unit


class Counted:
    def __init__(self, case: Case) -> None:
        self._registry = CollectorRegistry()
        case.router.observe(OutcomeMetrics(self._registry, "tiny"))

    @property
    def outcomes(self) -> dict[str, float]:
        """Of all that ended, by finish reason or error."""
        return {
            sample.labels.get("finished_reason") or sample.labels["error"]: sample.value
            for family in self._registry.collect()
            for sample in family.samples
            if sample.name.endswith("_total")
        }


async def make_counted() -> tuple[Case, Wire, Counted]:
    case, (wire,) = await make_case()
    return case, wire, Counted(case)


async def test_a_request_whose_stream_broke_and_was_resumed_is_counted_once() -> None:
    case, wire, counted = await make_counted()
    first = case.router.submit(make_request(resumable=True))
    case.say(wire, 0, 10)
    await first.aclose()
    assert counted.outcomes == {}
    second = (await case.router.attach("r", always)).stream
    third = (await case.router.attach("r", always)).stream
    case.say(wire, 1, 11, finish=FinishReason.LENGTH)
    for stream in (second, third):
        assert await read(stream) == ([10, 11], FinishReason.LENGTH)
        stream.finish()
        await stream.aclose()
    assert counted.outcomes == {"length": 1}


async def test_one_whose_client_has_all_it_wants_has_stopped_and_one_that_was_left_was_aborted() -> None:
    case, wire, counted = await make_counted()
    stream = case.router.submit(make_request())
    case.say(wire, 0, 10)
    await next_of(stream)
    stream.finish()
    await stream.aclose()
    assert counted.outcomes == {"stop": 1}
    await case.router.submit(make_request("left")).aclose()
    aborted = case.router.submit(make_request("aborted"))
    case.router.abort("aborted")
    with pytest.raises(RequestAborted):
        await read(aborted)
    assert counted.outcomes == {"stop": 1, "abort": 2}


async def test_one_that_fails_is_counted_by_its_error() -> None:
    case, _, counted = await make_counted()
    case.router.submit(make_request())
    await case.router.close()
    assert counted.outcomes == {"NoInstance": 1}
