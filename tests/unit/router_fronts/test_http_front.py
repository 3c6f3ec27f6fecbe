"""The HTTP front over a real socket, byte by byte where that matters."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from router.errors import DeadlineExceeded, InstanceLost, NoInstance, PortInUse, QueueFull
from router.generation import TextGenerator
from router.http_front import HttpFront
from router.metrics import Metrics
from tests.unit.router_fronts.factories import (
    HOLD,
    HOST,
    MODEL,
    FakeBackend,
    HttpClient,
    http_front,
    make_generator,
    say,
)

pytestmark = [pytest.mark.unit, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[tuple[TextGenerator, str]]:
    """One for all tests here, since a server takes its time to stop; each test puts its own backend behind it."""
    async with http_front(FakeBackend()) as (generator, url):
        yield generator, url


@pytest.fixture
def backend(front: tuple[TextGenerator, str]) -> FakeBackend:
    front[0].backend = backend = FakeBackend(say("Grüße, 🙂!"))
    return backend


@pytest.fixture
def http(backend: FakeBackend, front: tuple[TextGenerator, str]) -> HttpClient:
    return HttpClient(front[1])


async def events_of(http: HttpClient, path: str, body: dict[str, Any]) -> list[str]:
    """The data of each server-sent event."""
    response = await http.post(path, {"stream": True, **body})
    assert response.status == 200
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.text.endswith("\n\n")
    return [event.removeprefix("data: ") for event in response.text.removesuffix("\n\n").split("\n\n")]


async def test_a_stream_is_chunks_then_usage_then_done(http: HttpClient) -> None:
    body = {"prompt": "hi", "stream_options": {"include_usage": True}}
    *chunks, usage, done = await events_of(http, "/v1/completions", body)
    choices = [json.loads(chunk)["choices"][0] for chunk in chunks]
    assert "".join(choice["text"] for choice in choices) == "Grüße, 🙂!"
    assert [choice["finish_reason"] for choice in choices][-2:] == [None, "length"]
    assert json.loads(usage)["choices"] == []
    assert json.loads(usage)["usage"]["prompt_tokens_details"] == {"cached_tokens": 1}
    assert done == "[DONE]"


async def test_a_chat_stream_opens_with_the_role(http: HttpClient, backend: FakeBackend) -> None:
    first, second, *_ = await events_of(http, "/v1/chat/completions", {"messages": [{"role": "user", "content": "hi"}]})
    assert json.loads(first)["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert json.loads(second)["choices"][0]["delta"] == {"content": "Gr"}


async def test_an_error_in_mid_stream_is_an_event_and_not_a_silent_end(http: HttpClient, backend: FakeBackend) -> None:
    for error, kind in ((InstanceLost("d0: gone"), "service_unavailable_error"), (KeyError("x"), "server_error")):
        backend.script = [*say("half", finish=None), error]
        events = await events_of(http, "/v1/completions", {"prompt": "hi"})
        assert json.loads(events[-1])["error"]["type"] == kind
        assert "[DONE]" not in events


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "status"), [(InstanceLost("d0: gone"), 503), (DeadlineExceeded(), 504), (NoInstance("none"), 503)]
)
async def test_an_error_before_the_first_token_is_a_status(
    http: HttpClient, backend: FakeBackend, error: Exception, status: int, stream: bool
) -> None:
    backend.script = [error]
    response = await http.post("/v1/completions", {"prompt": "hi", "stream": stream})
    assert response.status == status
    assert response.json()["error"]["message"] == str(error)


async def test_a_full_queue_is_429_with_retry_after(http: HttpClient, backend: FakeBackend) -> None:
    backend.refusal = QueueFull(1.5)
    response = await http.post("/v1/completions", {"prompt": "hi"})
    assert (response.status, response.headers["retry-after"]) == (429, "2")


CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("completions", {}, "prompt"),
        ("completions", {"prompt": None}, "prompt"),
        ("completions", {"prompt": ""}, "prompt"),
        ("completions", {"prompt": []}, "prompt"),
        ("completions", {"prompt": [[1], []]}, "prompt"),
        ("completions", {"prompt": [1, "a"]}, "prompt"),
        ("completions", {"prompt": [True]}, "prompt"),
        ("completions", {"prompt": [-1]}, "prompt"),
        ("completions", {"prompt": "\ud800"}, "prompt"),
        ("completions", {"prompt": ["hi"] * 129}, "prompt"),
        ("completions", {"prompt": "word " * 200}, "prompt"),
        ("completions", {"prompt": "hi", "echo": True}, "echo"),
        ("completions", {"prompt": "hi", "suffix": "x"}, "suffix"),
        ("completions", {"prompt": "hi", "logit_bias": {"1": 2}}, "logit_bias"),
        ("completions", {"prompt": "hi", "no_such_parameter": 1}, "no_such_parameter"),
        ("completions", {"prompt": "hi", "n": 17}, "n"),
        ("completions", {"prompt": "hi", "n": 0}, "n"),
        ("completions", {"prompt": "hi", "temperature": "hot"}, "temperature"),
        ("completions", {"prompt": "hi", "temperature": -1}, "temperature"),
        ("completions", {"prompt": "hi", "max_tokens": 1.5}, "max_tokens"),
        ("completions", {"prompt": "hi", "max_tokens": 10**30}, "max_tokens"),
        ("completions", {"prompt": "hi", "logprobs": 21}, "logprobs"),
        ("completions", {"prompt": "hi", "stream_options": {"x": 1}}, "stream_options.x"),
        ("chat/completions", {"messages": []}, "messages"),
        ("chat/completions", {"messages": [{"role": "user"}]}, "messages.0.content"),
        ("chat/completions", {"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "messages.0.content"),
        ("chat/completions", {"messages": [{"role": "user", "content": "word " * 200}]}, "messages"),
        ("chat/completions", {**CHAT, "tools": [{"type": "function"}]}, "tools"),
        ("chat/completions", {**CHAT, "top_logprobs": 2}, "top_logprobs"),
        ("chat/completions", {**CHAT, "logprobs": True, "top_logprobs": 21}, "top_logprobs"),
    ],
)  # fmt: skip
async def test_bad_input_is_a_400_that_names_the_parameter(
    http: HttpClient, path: str, body: dict[str, Any], param: str
) -> None:
    response = await http.post(f"/v1/{path}", json.dumps(body))
    assert (response.status, response.json()["error"]["param"]) == (400, param)
    assert response.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b'{"prompt": "\xff"}', "not valid UTF-8"),
        (b"{", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "should be a JSON object"),
        (b'{"prompt": "hi", "temperature": NaN}', "temperature"),
    ],
)
async def test_a_broken_body_is_a_400(http: HttpClient, body: bytes, said: str) -> None:
    response = await http.post("/v1/completions", body)
    assert response.status == 400
    assert said in response.json()["error"]["message"]


async def test_what_changes_nothing_may_be_said(http: HttpClient) -> None:
    harmless = {"prompt": "hi", "user": "me", "presence_penalty": 0.0, "top_k": -1, "logit_bias": {}, "best_of": 1}
    assert (await http.post("/v1/completions", {**harmless, "stop": None})).status == 200


async def test_unknown_paths_methods_and_models_are_json_errors_too(http: HttpClient) -> None:
    assert (await http.get("/v2")).json()["error"]["message"] == "Not Found"
    assert (await http.get("/v1/completions")).status == 405
    response = await http.post("/v1/completions", {"prompt": "hi", "model": "other"})
    assert (response.status, response.json()["error"]["code"]) == (404, "model_not_found")


async def test_a_defect_of_ours_is_a_500_that_tells_no_secrets(http: HttpClient, backend: FakeBackend) -> None:
    backend.refusal = KeyError("secret")
    response = await http.post("/v1/completions", {"prompt": "hi"})
    assert (response.status, response.json()["error"]["message"]) == (500, "internal error")


@pytest.mark.parametrize("num_tokens_before", [0, 1])
@pytest.mark.parametrize("options", [{}, {"n": 2}, {"stream": True}, {"stream": True, "n": 2}], ids=str)
async def test_a_client_that_hangs_up_aborts_its_requests(
    backend: FakeBackend, front: tuple[TextGenerator, str], options: dict[str, Any], num_tokens_before: int
) -> None:
    backend.script = [*say("one", finish=None)[:num_tokens_before], HOLD]
    children = ["r-0", "r-1"] if "n" in options else ["r"]
    host, port = front[1].removeprefix("http://").split(":")
    _, writer = await asyncio.open_connection(host, int(port))
    body = json.dumps({"prompt": "hi", "request_id": "r", **options}).encode()
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    for child in children:
        await asyncio.wait_for(backend.has_started[child].wait(), 5)
    writer.close()
    for child in children:
        await asyncio.wait_for(backend.was_closed[child].wait(), 1)


async def test_one_failing_choice_ends_the_others(http: HttpClient, backend: FakeBackend) -> None:
    backend.script = lambda request: [InstanceLost("gone") if request.request_id.endswith("1") else HOLD]
    response = await http.post("/v1/completions", {"prompt": "hi", "n": 3, "request_id": "r"})
    assert response.status == 503
    assert backend.was_closed["r-0"].is_set()
    assert backend.was_closed["r-2"].is_set()


async def test_health_is_503_until_ready() -> None:
    front = HttpFront(make_generator(FakeBackend()))
    http = HttpClient(f"http://{HOST}:{await front.start(HOST, 0)}")
    assert (await http.get("/health")).status == 503
    await front.set_ready(True)
    assert (await http.get("/health")).status == 200
    await front.stop()


async def test_metrics_tell_of_requests_blocks_and_measured_links() -> None:
    status = FakeBackend().status()
    status.instances.add(instance="d0", role="decode", status="RUNNING", num_blocks=8, num_free_blocks=6)
    status.links.add(source="p0", target="d0", transport="shm", num_bytes=7, beta_bytes_per_s=6e9)
    text = Metrics(MODEL, lambda: status).render().decode()
    for line in (
        'vllm:num_requests_running{model_name="tiny"} 3.0',
        'vllm:num_requests_waiting{model_name="tiny"} 2.0',
        'vllm:kv_cache_usage_perc{model_name="tiny"} 0.25',
        'baton:instance_num_free_blocks{instance="d0",role="decode",status="RUNNING"} 6.0',
        'baton:link_beta_bytes_per_second{source="p0",target="d0",transport="shm"} 6e+09',
        'baton:link_num_bytes_total{source="p0",target="d0",transport="shm"} 7.0',
    ):
        assert line in text


async def test_metrics_are_served(http: HttpClient) -> None:
    response = await http.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=")
    assert "vllm:e2e_request_latency_seconds_bucket" in response.text


async def test_connections_do_not_wait_for_acknowledgements() -> None:
    front = HttpFront(make_generator(FakeBackend()))
    port = await front.start(HOST, 0)
    reader, writer = await asyncio.open_connection(HOST, port)
    writer.write(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
    await reader.readline()  # so the connection is the server's, too
    [connection] = front._server.server_state.connections
    accepted = connection.transport.get_extra_info("socket")
    assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
    writer.close()
    await front.stop()


async def test_a_port_in_use_is_said_in_one_line(front: tuple[TextGenerator, str]) -> None:
    generator, url = front
    port = int(url.rpartition(":")[2])
    with pytest.raises(PortInUse, match=f"^cannot listen on {HOST}:{port}: .*in use$"):
        await HttpFront(generator).start(HOST, port)
