"""The official client, unmodified, against a real server."""

from collections.abc import AsyncIterator

import openai
import pytest
import pytest_asyncio

from cluster.engine.sequence import FinishReason
from router.errors import InstanceLost, QueueFull
from router.generation import TextGenerator
from tests.unit.router_fronts.factories import MODEL, TOKENIZER, FakeBackend, http_front, say

pytestmark = [pytest.mark.unit, pytest.mark.asyncio(loop_scope="module")]

TEXT = "Grüße, 🙂!"
MESSAGES = [{"role": "user", "content": "hi"}]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def front() -> AsyncIterator[tuple[TextGenerator, openai.AsyncOpenAI]]:
    async with (
        http_front(FakeBackend()) as (generator, url),
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        yield generator, client


@pytest.fixture
def backend(front: tuple[TextGenerator, openai.AsyncOpenAI]) -> FakeBackend:
    front[0].backend = backend = FakeBackend(
        lambda request: say(TEXT, logprobs=request.sampling_params.logprobs is not None)
    )
    return backend


@pytest.fixture
def client(backend: FakeBackend, front: tuple[TextGenerator, openai.AsyncOpenAI]) -> openai.AsyncOpenAI:
    return front[1]


async def test_a_completion(client: openai.AsyncOpenAI, backend: FakeBackend) -> None:
    completion = await client.completions.create(model=MODEL, prompt="hi", max_tokens=9, temperature=0, seed=3)
    [choice] = completion.choices
    assert (choice.text, choice.finish_reason, choice.logprobs) == (TEXT, "length", None)
    assert completion.usage is not None
    assert completion.usage.completion_tokens == len(TOKENIZER.encode(TEXT))
    assert completion.id == completion._request_id == backend.last.request_id
    assert (backend.last.sampling_params.max_tokens, backend.last.sampling_params.seed) == (9, 3)


async def test_a_completion_s_stream_with_usage(client: openai.AsyncOpenAI) -> None:
    stream = await client.completions.create(
        model=MODEL, prompt="hi", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks[:-1]) == TEXT
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.prompt_tokens == len(TOKENIZER.encode("hi"))


async def test_a_chat_goes_through_the_template(client: openai.AsyncOpenAI, backend: FakeBackend) -> None:
    completion = await client.chat.completions.create(model=MODEL, messages=MESSAGES, max_completion_tokens=4)
    assert completion.choices[0].message.content == TEXT
    assert backend.last.prompt_token_ids == TOKENIZER.encode("<|user|>hi<|end|><|assistant|>", add_special_tokens=False)
    assert backend.last.sampling_params.max_tokens == 4


async def test_a_chat_s_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    deltas = [chunk.choices[0] async for chunk in stream]
    assert deltas[0].delta.role == "assistant"
    assert "".join(delta.delta.content or "" for delta in deltas) == TEXT
    assert deltas[-1].finish_reason == "length"


async def test_content_in_parts_is_one_text(client: openai.AsyncOpenAI, backend: FakeBackend) -> None:
    parts = [{"type": "text", "text": "h"}, {"type": "text", "text": "i"}]
    await client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])
    assert "hi" in TOKENIZER.decode(backend.last.prompt_token_ids)


async def test_logprobs_of_a_completion(client: openai.AsyncOpenAI) -> None:
    completion = await client.completions.create(model=MODEL, prompt="hi", logprobs=2)
    logprobs = completion.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.token_logprobs == [-0.5] * len(TOKENIZER.encode(TEXT))
    assert logprobs.tokens is not None
    assert logprobs.text_offset is not None
    assert (logprobs.tokens[0], logprobs.text_offset[:2]) == ("Gr", [0, 2])
    assert logprobs.top_logprobs is not None
    assert logprobs.top_logprobs[0] == {"Gr": -0.5, TOKENIZER.decode([5]): -9999.0}


@pytest.mark.parametrize("stream", [False, True])
async def test_logprobs_of_a_chat(client: openai.AsyncOpenAI, stream: bool) -> None:
    answer = await client.chat.completions.create(
        model=MODEL, messages=MESSAGES, logprobs=True, top_logprobs=2, stream=stream
    )
    choices = [chunk.choices[0] async for chunk in answer] if stream else answer.choices
    tokens = [token for choice in choices if choice.logprobs for token in choice.logprobs.content]
    assert len(tokens) == len(TOKENIZER.encode(TEXT))
    assert (tokens[0].token, tokens[0].bytes, tokens[0].logprob) == ("Gr", [71, 114], -0.5)
    assert [top.logprob for top in tokens[0].top_logprobs] == [-0.5, -9999.0]


@pytest.mark.parametrize("stop", [",", [",", "x"]])
async def test_stop_strings(client: openai.AsyncOpenAI, stop: str | list[str]) -> None:
    completion = await client.completions.create(model=MODEL, prompt="hi", stop=stop)
    assert (completion.choices[0].text, completion.choices[0].finish_reason) == ("Grüße", "stop")


@pytest.mark.parametrize("prompt", ["hi", ["hi", "ho"], [5, 6], [[5, 6], [7]]], ids=str)
async def test_every_kind_of_prompt(client: openai.AsyncOpenAI, backend: FakeBackend, prompt: object) -> None:
    completion = await client.completions.create(model=MODEL, prompt=prompt)
    assert [choice.index for choice in completion.choices] == list(range(len(backend.submitted)))
    expected = {
        "hi": [TOKENIZER.encode("hi")],
        "['hi', 'ho']": [TOKENIZER.encode("hi"), TOKENIZER.encode("ho")],
        "[5, 6]": [(5, 6)],
        "[[5, 6], [7]]": [(5, 6), (7,)],
    }[str(prompt)]
    assert [request.prompt_token_ids for request in backend.submitted] == expected


@pytest.mark.parametrize("stream", [False, True])
async def test_n_choices_are_n_requests_with_seeds_in_a_row_that_share_a_prompt(
    client: openai.AsyncOpenAI, backend: FakeBackend, stream: bool
) -> None:
    words = ["zero", "one", "two"]
    backend.script = lambda request: say(words[request.sampling_params.seed - 7], finish=FinishReason.LENGTH)
    options = {"stream_options": {"include_usage": True}} if stream else {}
    answer = await client.completions.create(model=MODEL, prompt="hi", n=3, seed=7, stream=stream, **options)
    chunks = [chunk async for chunk in answer] if stream else [answer]
    texts = ["", "", ""]
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.text
    assert texts == words
    assert chunks[-1].usage.prompt_tokens == len(TOKENIZER.encode("hi"))
    assert chunks[-1].usage.completion_tokens == sum(len(TOKENIZER.encode(word)) for word in words)


async def test_models(client: openai.AsyncOpenAI) -> None:
    assert [model.id async for model in client.models.list()] == [MODEL]
    assert (await client.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("other")


async def test_errors_are_those_of_the_client(client: openai.AsyncOpenAI, backend: FakeBackend) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        await client.completions.create(model=MODEL, prompt="hi", temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.NotFoundError):
        await client.completions.create(model="other", prompt="hi")
    backend.refusal = QueueFull(2.0)
    with pytest.raises(openai.RateLimitError) as limited:
        await client.completions.create(model=MODEL, prompt="hi")
    assert limited.value.response.headers["retry-after"] == "2"


async def test_an_error_in_mid_stream_is_raised(client: openai.AsyncOpenAI, backend: FakeBackend) -> None:
    backend.script = [*say("half", finish=None), InstanceLost("d0: gone")]
    stream = await client.chat.completions.create(model=MODEL, messages=MESSAGES, stream=True)
    with pytest.raises(openai.APIError, match="d0: gone"):
        [_ async for _ in stream]
