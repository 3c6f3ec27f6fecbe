"""A stream that broke goes on: over gRPC, in the client library, and over HTTP."""

import asyncio
import json
from contextlib import aclosing
from dataclasses import replace
from struct import pack, unpack
from typing import Any

import grpc
import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.pb import baton_pb2
from router.backend import TokenDelta
from router.client import BatonClient
from router.errors import CannotResume, InstanceLost, InvalidRequest, NoInstance, UnknownRequest
from router.grpc_front import GrpcFront
from router.output_text import GenerationDelta
from router.resume import ResumePoint
from router.validation import GenerateRequest, RequestedSampling
from tests.unit.router_fronts.factories import (
    HOLD,
    HOST,
    TOKENIZER,
    FakeBackend,
    HttpClient,
    Step,
    grpc_front,
    http_front,
    make_generator,
    say,
)

pytestmark = pytest.mark.unit

TEXT = "Grüße, 🙂! one two"
TOKEN_IDS = TOKENIZER.encode(TEXT)
STOP = ("two",)


async def deltas_of(backend: FakeBackend, stop: tuple[str, ...] = ()) -> list[GenerationDelta]:
    """Of the request `r`, undisturbed."""
    request = GenerateRequest(prompt="hi", request_id="r", sampling=RequestedSampling(stop=stop))
    return [delta async for delta in make_generator(backend).generate(request)]


async def continued(backend: FakeBackend, num_known: int, *stop: str, known: Any = TOKEN_IDS) -> list[GenerationDelta]:
    point = ResumePoint.after("r", known[:num_known])
    async with aclosing(await make_generator(backend).attach(point, stop)) as continuation:
        assert continuation.known_token_ids == tuple(known[:num_known])
        return [delta async for delta in continuation.deltas()]


def text_of(deltas: list[GenerationDelta]) -> str:
    return "".join(delta.text for delta in deltas)


def in_lumps(steps: list[TokenDelta], size: int) -> list[Step]:
    """As a reader gets them that comes late: several tokens at once."""
    lumps = [steps[start : start + size] for start in range(0, len(steps), size)]
    return [
        TokenDelta(
            start_index=lump[0].start_index,
            token_ids=tuple(token for step in lump for token in step.token_ids),
            finish_reason=lump[-1].finish_reason,
            num_cached_tokens=1,
        )
        for lump in lumps
    ]


@pytest.mark.parametrize("stop", [(), STOP])
@pytest.mark.parametrize("size", [1, 4, 100])
async def test_wherever_it_broke_the_text_goes_on_as_if_it_had_not(size: int, stop: tuple[str, ...]) -> None:
    backend = FakeBackend(say(TEXT))
    whole = await deltas_of(backend, stop)
    backend.script = in_lumps(say(TEXT), size)
    for num_known in range(len(whole) + 1):
        rest = await continued(backend, num_known, *stop)
        assert text_of(whole[:num_known]) + text_of(rest) == text_of(whole)
        assert [token for delta in rest for token in delta.token_ids] == [
            token for delta in whole[num_known:] for token in delta.token_ids
        ]
        assert rest[0].index == num_known
        assert (rest[-1].finish_reason, rest[-1].usage) == (whole[-1].finish_reason, whole[-1].usage)


async def test_tokens_that_are_not_the_request_s_are_never_gone_on_from() -> None:
    backend = FakeBackend(say(TEXT))
    await deltas_of(backend)
    with pytest.raises(CannotResume, match="not the beginning"):
        await continued(backend, 2, known=(TOKEN_IDS[0], TOKEN_IDS[1] + 1))
    with pytest.raises(CannotResume, match="less"):
        await continued(backend, len(TOKEN_IDS) + 1, known=(*TOKEN_IDS, 5))
    with pytest.raises(UnknownRequest):
        await make_generator(backend).attach(ResumePoint.after("unknown", ()))
    with pytest.raises(InvalidRequest):
        await make_generator(backend).attach(ResumePoint.after("r", ()), ("",))


async def test_a_request_that_ended_at_a_stop_string_cannot_be_gone_on_with_without_it() -> None:
    backend = FakeBackend(say("one", finish=None))
    await deltas_of(backend, ("one",))
    with pytest.raises(CannotResume, match="stop strings"):
        await continued(backend, 1, known=TOKENIZER.encode("one"))


# gRPC


async def attach(client: BatonClient, num_known: int, **changes: Any) -> list[baton_pb2.GenerateDelta]:
    point = ResumePoint.after("r", TOKEN_IDS[:num_known])
    fields = {"request_id": "r", "next_index": num_known, "tokens_hash": point.tokens_hash}
    call = client._stub.Attach(baton_pb2.AttachRequest(**{**fields, **changes}), timeout=5)
    return [delta async for delta in call]


async def test_attach_streams_what_is_missing() -> None:
    backend = FakeBackend(say(TEXT))
    async with grpc_front(backend) as address, BatonClient(address) as client:
        await client.complete("hi", request_id="r")
        deltas = await attach(client, 3)
        assert (deltas[0].index, deltas[0].request_id) == (3, "r")
        assert tuple(token for delta in deltas for token in delta.token_ids) == TOKEN_IDS[3:]
        assert deltas[-1].usage.num_output_tokens == len(TOKEN_IDS)
        assert len(await attach(client, 0, tokens_hash=b"")) == len(TOKEN_IDS)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"request_id": "unknown"}, grpc.StatusCode.NOT_FOUND),
        ({"request_id": ""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"next_index": 2}, grpc.StatusCode.ABORTED),
        ({"next_index": 10_000}, grpc.StatusCode.ABORTED),
        ({"next_index": -1}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"tokens_hash": b""}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"tokens_hash": b"01234567"}, grpc.StatusCode.ABORTED),
        ({"stop": [""]}, grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_nonsense_is_refused_and_never_spliced(changes: dict[str, Any], code: grpc.StatusCode) -> None:
    backend = FakeBackend(say(TEXT))
    async with grpc_front(backend) as address, BatonClient(address) as client:
        await client.complete("hi", request_id="r")
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await attach(client, 3, **changes)
    assert raised.value.code() is code


# The client library


class Server:
    """A gRPC front that dies, and another on the same port."""

    def __init__(self, backend: FakeBackend) -> None:
        self.backend = backend
        self._port = 0

    async def __aenter__(self) -> "Server":
        await self.start(self.backend)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, backend: FakeBackend) -> None:
        self.backend = backend
        self._front = GrpcFront(make_generator(backend))
        self._port = await self._front.start(HOST, self._port)

    async def stop(self) -> None:
        await self._front.stop(grace_s=0)

    @property
    def address(self) -> str:
        return f"{HOST}:{self._port}"


@pytest.mark.parametrize("is_known", [True, False])
async def test_a_stream_that_breaks_goes_on_when_the_router_is_back(is_known: bool) -> None:
    """Each token once, whether the router still has the request or it has to be sent again."""
    async with (
        Server(FakeBackend([*say(TEXT, finish=None)[:5], HOLD])) as server,
        BatonClient(server.address) as client,
    ):
        deltas = client.generate("hi", request_id="r", temperature=0.5)
        got = [await anext(deltas) for _ in range(5)]
        first = server.backend.last
        assert first.resumable
        await server.stop()
        again = FakeBackend(say(TEXT))
        if is_known:
            again.submitted.append(first)
        await server.start(again)
        got += [delta async for delta in deltas]
        assert "".join(delta.text for delta in got) == TEXT
        assert tuple(token for delta in got for token in delta.token_ids) == TOKEN_IDS
        assert got[-1].finish_reason == baton_pb2.FINISH_REASON_LENGTH
        assert len(again.submitted) == 1
        assert again.last.sampling_params == first.sampling_params  # the seed, above all


async def test_a_request_without_tokens_yet_is_sent_again_whole() -> None:
    async with Server(FakeBackend([HOLD])) as server, BatonClient(server.address) as client:
        completing = asyncio.create_task(client.complete("hi", request_id="r"))
        await server.backend.has_started["r"].wait()
        await server.stop()
        await server.start(FakeBackend(say(TEXT)))
        assert (await completing).text == TEXT


@pytest.mark.parametrize("num_known", [0, 5])
@pytest.mark.parametrize("earlier", [{"prompt_token_ids": (5, 6)}, {"sampling_params": SamplingParams(max_tokens=3)}])
async def test_the_answer_to_an_earlier_request_with_the_same_id_is_never_given(
    earlier: dict[str, Any], num_known: int
) -> None:
    """The router that came back has adopted it from an instance, and does not know of the later one."""
    async with (
        Server(FakeBackend([*say(TEXT, finish=None)[:num_known], HOLD])) as server,
        BatonClient(server.address) as client,
    ):
        completing = asyncio.create_task(client.complete("hi", request_id="r"))
        await server.backend.has_started["r"].wait()
        other = replace(server.backend.last, **earlier)
        await server.stop()
        again = FakeBackend(lambda request: say(TEXT[:3] + "other") if request == other else say(TEXT))
        again.submitted.append(other)
        await server.start(again)
        assert (await completing).text == TEXT
        assert len(again.submitted) == 2


async def test_a_request_is_recognised_by_what_an_instance_gives_back_of_it() -> None:
    """Single precision; and where the client gave no seed, any seed's tokens are its."""
    backend = FakeBackend(say(TEXT))
    generator = make_generator(backend)
    request = GenerateRequest(prompt="hi", request_id="r", sampling=RequestedSampling(temperature=0.7, top_p=0.9))
    [delta async for delta in generator.generate(request)]
    params = backend.last.sampling_params
    temperature, top_p = unpack("<2f", pack("<2f", params.temperature, params.top_p))
    params = replace(params, temperature=temperature, top_p=top_p)
    backend.submitted[:] = [replace(backend.last, sampling_params=params)]
    await (await generator.attach(ResumePoint.after("r", ()), (), request)).aclose()
    other = replace(request, sampling=replace(request.sampling, seed=params.seed + 1))
    with pytest.raises(UnknownRequest):
        await generator.attach(ResumePoint.after("r", ()), (), other)


async def test_other_tokens_under_the_same_id_end_the_stream_with_an_error() -> None:
    async with (
        Server(FakeBackend([*say(TEXT, finish=None)[:5], HOLD])) as server,
        BatonClient(server.address) as client,
    ):
        deltas = client.generate("hi", request_id="r")
        for _ in range(5):
            await anext(deltas)
        await server.stop()
        await server.start(FakeBackend(say("Something else")))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await anext(deltas)
        assert raised.value.code() is grpc.StatusCode.ABORTED


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"timeout_s": 2.0}, grpc.StatusCode.DEADLINE_EXCEEDED),
        ({}, grpc.StatusCode.UNAVAILABLE),
        ({"resumable": False}, grpc.StatusCode.UNAVAILABLE),
    ],
)
async def test_a_router_that_does_not_come_back_is_an_error_in_time(
    options: dict[str, Any], code: grpc.StatusCode
) -> None:
    backend = FakeBackend([*say("one", finish=None), HOLD])
    async with Server(backend) as server, BatonClient(server.address, reconnect_timeout_s=0.3) as client:
        deltas = client.generate("hi", request_id="r", **options)
        await anext(deltas)
        await server.stop()
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            [delta async for delta in deltas]
    assert raised.value.code() is code


async def test_an_address_where_nobody_answers_is_an_error_at_once() -> None:
    async with Server(FakeBackend()) as server:
        await server.stop()
        async with BatonClient(server.address) as client:
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await client.complete("hi")
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("error", [InstanceLost("d0: gone"), NoInstance("none")])
async def test_what_the_router_says_itself_is_not_tried_again(error: Exception) -> None:
    backend = FakeBackend([*say("one", finish=None), error])
    async with grpc_front(backend) as address, BatonClient(address) as client:
        with pytest.raises(grpc.aio.AioRpcError, match=str(error)):
            await client.complete("hi")
    assert len(backend.submitted) == 1


@pytest.mark.parametrize("how", ["leave", "close"])
async def test_a_client_that_leaves_a_resumable_request_says_so(how: str) -> None:
    """A broken stream alone would be waited for."""
    aborted = asyncio.Event()

    class Backend(FakeBackend):
        def abort(self, request_id: str) -> bool:
            aborted.set()
            return True

    async with grpc_front(Backend([*say("one", finish=None), HOLD])) as address, BatonClient(address) as client:
        deltas = client.generate("hi")
        await anext(deltas)
        await (deltas.aclose() if how == "leave" else client.close())
        await asyncio.wait_for(aborted.wait(), 1)


# HTTP


BODY = {"prompt": "hi", "stream": True, "resumable": True}


def parse(text: str) -> list[tuple[str, str]]:
    """(id, data) of each event."""
    events = []
    for event in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in event.split("\n"))
        events.append((fields.get("id", ""), fields["data"]))
    return events


def choice_texts(events: list[tuple[str, str]]) -> list[str]:
    return [json.loads(data)["choices"][0]["text"] for _, data in events if data != "[DONE]"]


async def test_a_resumable_stream_goes_on_after_each_of_its_event_ids() -> None:
    async with http_front(FakeBackend(say(TEXT, logprobs=True))) as (_, url):
        http, body = HttpClient(url), {**BODY, "logprobs": 0}
        whole = parse((await http.post("/v1/completions", body)).text)
        assert "".join(choice_texts(whole)) == TEXT
        for position, (event_id, _) in enumerate(whole[:-2]):
            response = await http.post("/v1/completions", body, {"Last-Event-ID": event_id})
            rest = parse(response.text)
            assert [event[0] for event in rest] == [event[0] for event in whole[position + 1 :]]
            assert choice_texts(rest) == choice_texts(whole[position + 1 :])
            assert offsets(rest) == offsets(whole[position + 1 :])


def offsets(events: list[tuple[str, str]]) -> list[Any]:
    return [json.loads(data)["choices"][0]["logprobs"] for _, data in events if data != "[DONE]"]


async def test_a_chat_that_goes_on_is_not_opened_again() -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "stream": True, "resumable": True}
    async with http_front(FakeBackend(say(TEXT))) as (_, url):
        http = HttpClient(url)
        opening, first, *_ = parse((await http.post("/v1/chat/completions", body)).text)
        assert opening[0] == ""
        rest = parse((await http.post("/v1/chat/completions", body, {"Last-Event-ID": first[0]})).text)
        assert "role" not in json.loads(rest[0][1])["choices"][0]["delta"]


async def test_a_stream_that_is_not_resumable_has_no_ids() -> None:
    async with http_front(FakeBackend(say(TEXT))) as (_, url):
        response = await HttpClient(url).post("/v1/completions", {"prompt": "hi", "stream": True})
        assert {event_id for event_id, _ in parse(response.text)} == {""}


@pytest.mark.parametrize(
    ("changes", "event_id", "status", "param"),
    [
        ({"stream": False}, None, 400, "resumable"),
        ({"n": 2}, None, 400, "resumable"),
        ({"prompt": ["a", "b"]}, None, 400, "resumable"),
        ({"stream": False}, "r:0:" + ResumePoint.after("r", ()).tokens_hash.hex(), 400, "resumable"),
        ({}, "nonsense", 400, "last-event-id"),
        ({}, "unknown:0:" + ResumePoint.after("r", ()).tokens_hash.hex(), 404, None),
        ({}, "r:1:0011223344556677", 409, None),
    ],
)
async def test_what_cannot_be_resumed_is_said_in_the_status(
    changes: dict[str, Any], event_id: str | None, status: int, param: str | None
) -> None:
    async with http_front(FakeBackend(say(TEXT))) as (_, url):
        http = HttpClient(url)
        await http.post("/v1/completions", {**BODY, "request_id": "r"})
        headers = {"Last-Event-ID": event_id} if event_id else {}
        response = await http.post("/v1/completions", {**BODY, **changes}, headers)
        assert (response.status, response.json()["error"]["param"]) == (status, param)


async def test_the_finish_reason_is_said_again_to_a_client_that_has_every_token() -> None:
    backend = FakeBackend(say(TEXT))
    await deltas_of(backend)
    (last,) = await continued(backend, len(TOKEN_IDS))
    assert (last.finish_reason, last.token_ids) == (FinishReason.LENGTH, ())
