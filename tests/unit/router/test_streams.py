"""What is kept of requests that have ended: by time, by number, and never under another request's id."""

import pytest

from cluster.engine.sampling_params import SamplingParams
from router.backend import AdmittedRequest
from router.stream_store import MAX_RETAINED, StreamStore, Timer
from router.streams import RequestStream

pytestmark = pytest.mark.unit


class Events:
    def on_satisfied(self, stream: RequestStream) -> None:
        stream.end()

    def on_deserted(self, stream: RequestStream) -> None:
        stream.end()


def make_stream(request_id: str = "r", *, resumable: bool = True) -> RequestStream:
    request = AdmittedRequest(
        request_id=request_id,
        prompt_token_ids=(1,),
        sampling_params=SamplingParams(),
        deadline_s=None,
        priority=0,
        resumable=resumable,
    )
    return RequestStream(request, Events())


async def test_only_the_last_ended_streams_are_kept() -> None:
    store = StreamStore(retention_s=60.0)
    for number in range(MAX_RETAINED + 2):
        store.add(make_stream(f"r{number}"))
        store.end(f"r{number}")
    assert store.num_retained == MAX_RETAINED
    assert store.find("r1") is None
    assert store.find("r2") is not None
    store.close()


async def test_a_new_request_takes_the_place_of_an_ended_one_with_its_id() -> None:
    store = StreamStore(retention_s=60.0)
    first, second = make_stream(), make_stream()
    for stream in (first, second):
        store.add(stream)
        assert store.running("r") is store.find("r") is stream
        store.end("r")
    assert store.find("r") is second
    assert store.num_retained == 1
    store.close()


async def test_a_stream_that_ended_has_no_timers_but_that_of_its_keeping() -> None:
    store = StreamStore(retention_s=60.0)
    store.add(make_stream(resumable=False))
    for timer in (Timer.DEADLINE, Timer.GRACE):
        store.start("r", timer, 60.0, lambda request_id: None)
    store.end("r")
    assert store._timers == {}
    assert store.find("r") is None


async def test_the_last_reader_to_leave_deserts_the_stream_and_leaving_twice_is_nothing() -> None:
    stream = make_stream()
    first, second = stream.read(), stream.read()
    for _ in range(2):
        await first.aclose()
    assert not stream.is_over
    await second.aclose()
    assert stream.is_over
    assert [delta async for delta in stream.read()] == []
