"""A scripted backend, and fronts that stand on it."""

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.pb import baton_pb2
from cluster.text.chat_template import ChatTemplate
from router.backend import AdmittedRequest, AttachedRequest, TokenDelta
from router.errors import UnknownRequest
from router.generation import TextGenerator
from router.grpc_front import GrpcFront
from router.http_front import HttpFront
from router.model_info import ModelInfo
from tests.unit.text.factories import CHAT_TEMPLATE, make_tokenizer, vocab_size

HOST = "127.0.0.1"
MODEL = "tiny"
EOS_ID = 0
TOKENIZER = make_tokenizer(eos_token_ids={EOS_ID}, chat_template=ChatTemplate(CHAT_TEMPLATE))

HOLD = "hold"  # a step of a script: nothing more comes until the request ends
Step = TokenDelta | Exception | str
Script = Callable[[AdmittedRequest], Sequence[Step]]


def say(text: str, *, finish: FinishReason | None = FinishReason.LENGTH, logprobs: bool = False) -> list[TokenDelta]:
    """One token a delta."""
    token_ids = TOKENIZER.encode(text)
    last = len(token_ids) - 1
    return [
        TokenDelta(
            start_index=index,
            token_ids=(token_id,),
            logprobs=(TokenLogprobs(-0.5, ((token_id, -0.5), (5, float("-inf")))),) if logprobs else (),
            finish_reason=finish if index == last else None,
            num_cached_tokens=1,
        )
        for index, token_id in enumerate(token_ids)
    ]


class FakeBackend:
    """Plays a script for every request, and remembers what became of it."""

    def __init__(self, script: Script | Sequence[Step] = ()) -> None:
        self.script = script
        self.refusal: Exception | None = None
        self.cluster_status = baton_pb2.ClusterStatus(model=MODEL, num_running_requests=3, num_waiting_requests=2)
        self.submitted: list[AdmittedRequest] = []
        self.has_started: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.was_closed: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    def submit(self, request: AdmittedRequest) -> "FakeStream":
        if self.refusal is not None:
            raise self.refusal
        self.submitted.append(request)
        script = self.script(request) if callable(self.script) else self.script
        return FakeStream(self, request.request_id, script)

    async def attach(self, request_id: str, is_meant: Callable[[AdmittedRequest], bool]) -> AttachedRequest:
        """Plays the script of the last request of that id, if it is meant, from the beginning."""
        for request in reversed(self.submitted):
            if request.request_id == request_id and is_meant(request):
                script = self.script(request) if callable(self.script) else self.script
                return AttachedRequest(request, FakeStream(self, request_id, script))
        raise UnknownRequest(request_id)

    def abort(self, request_id: str) -> bool:
        return any(request.request_id == request_id for request in self.submitted)

    def status(self) -> baton_pb2.ClusterStatus:
        return self.cluster_status

    @property
    def last(self) -> AdmittedRequest:
        return self.submitted[-1]


class FakeStream:
    def __init__(self, backend: FakeBackend, request_id: str, script: Sequence[Step]) -> None:
        self._backend = backend
        self._request_id = request_id
        self._steps = iter(script)
        self._is_over = False

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> TokenDelta:
        self._backend.has_started[self._request_id].set()
        step = next(self._steps, None)
        if step is None:
            raise StopAsyncIteration
        if isinstance(step, str):
            await asyncio.Event().wait()
        await asyncio.sleep(0)  # lets others run, as a real stream does
        if isinstance(step, Exception):
            self._is_over = True
            raise step
        assert isinstance(step, TokenDelta)
        self._is_over = step.finish_reason is not None
        return step

    def finish(self) -> None:
        if not self._is_over:
            self._backend.was_closed[self._request_id].set()

    async def aclose(self) -> None:
        if not self._is_over:
            self._backend.was_closed[self._request_id].set()


def make_model_info(**changes: Any) -> ModelInfo:
    values = {
        "model": MODEL,
        "architecture": "LlamaForCausalLM",
        "max_model_len": 100,
        "vocab_size": vocab_size(),
        "eos_token_ids": frozenset({EOS_ID}),
    }
    return ModelInfo(**{**values, **changes})


def make_generator(backend: FakeBackend, **options: Any) -> TextGenerator:
    return TextGenerator(backend, options.pop("text", TOKENIZER), options.pop("model", make_model_info()), **options)


@asynccontextmanager
async def http_front(backend: FakeBackend, **options: Any) -> AsyncIterator[tuple[TextGenerator, str]]:
    """What a running front that is ready stands on, and its base URL."""
    generator = make_generator(backend, **options)
    front = HttpFront(generator)
    port = await front.start(HOST, 0)
    await front.set_ready(True)
    try:
        yield generator, f"http://{HOST}:{port}"
    finally:
        await front.stop()


@asynccontextmanager
async def grpc_front(backend: FakeBackend) -> AsyncIterator[str]:
    """The address of a running front that is ready."""
    front = GrpcFront(make_generator(backend))
    port = await front.start(HOST, 0)
    await front.set_ready(True)
    try:
        yield f"{HOST}:{port}"
    finally:
        await front.stop(grace_s=0)


@dataclass(frozen=True)
class HttpResponse:
    status: int
    headers: dict[str, str]
    text: str

    def json(self) -> Any:
        return json.loads(self.text)


class HttpClient:
    """The plainest there is: one connection a request, nothing retried."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")

    async def get(self, path: str) -> HttpResponse:
        return await asyncio.to_thread(self._request, "GET", path, None)

    async def post(
        self, path: str, body: bytes | str | dict[str, Any], headers: dict[str, str] | None = None
    ) -> HttpResponse:
        encoded = json.dumps(body) if isinstance(body, dict) else body
        return await asyncio.to_thread(self._request, "POST", path, encoded, headers)

    def _request(
        self, method: str, path: str, body: bytes | str | None, headers: dict[str, str] | None = None
    ) -> HttpResponse:
        connection = HTTPConnection(self._address, timeout=30)
        try:
            connection.request(method, path, body, headers or {})
            response = connection.getresponse()
            headers = {name.lower(): value for name, value in response.getheaders()}
            return HttpResponse(response.status, headers, response.read().decode())
        finally:
            connection.close()
