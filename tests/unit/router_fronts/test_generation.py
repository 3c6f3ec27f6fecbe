"""Tokens become exactly their text, up to the end, whatever the end is."""

import time
from contextlib import aclosing
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cluster.engine.sequence import FinishReason
from router.backend import TokenDelta
from router.errors import BatonError, DeadlineExceeded, GenerationFailed, InstanceLost, InvalidRequest, QueueFull
from router.metrics import Metrics
from router.output_text import GenerationDelta, Usage
from router.validation import GenerateRequest, Limits, RequestedSampling
from tests.unit.router_fronts.factories import EOS_ID, HOLD, TOKENIZER, FakeBackend, make_generator, say

pytestmark = pytest.mark.unit


async def collect(backend: FakeBackend, prompt: str | tuple[int, ...] = "hi", **sampling: Any) -> list[GenerationDelta]:
    request = GenerateRequest(prompt=prompt, request_id="r", sampling=RequestedSampling(**sampling))
    return [delta async for delta in make_generator(backend).generate(request)]


def text_of(deltas: list[GenerationDelta]) -> str:
    return "".join(delta.text for delta in deltas)


async def test_the_text_is_that_of_the_tokens_and_the_last_delta_has_the_usage() -> None:
    deltas = await collect(FakeBackend(say("Grüße, 🙂!")))
    assert text_of(deltas) == "Grüße, 🙂!"
    assert tuple(token for delta in deltas for token in delta.token_ids) == TOKENIZER.encode("Grüße, 🙂!")
    assert [delta.index for delta in deltas] == list(range(len(deltas)))
    assert deltas[-1].finish_reason is FinishReason.LENGTH
    num_prompt_tokens = len(TOKENIZER.encode("hi"))
    assert deltas[-1].usage == Usage(
        num_prompt_tokens=num_prompt_tokens, num_output_tokens=len(deltas), num_cached_tokens=1
    )
    assert all(delta.usage is None for delta in deltas[:-1])


async def test_a_stop_string_ends_the_request_well_and_lets_the_instances_go() -> None:
    backend = FakeBackend([*say("one two three", finish=None), HOLD])
    deltas = await collect(backend, stop=(" tw",))
    assert text_of(deltas) == "one"
    assert deltas[-1].finish_reason is FinishReason.STOP
    assert backend.was_closed["r"].is_set()


async def test_tokens_that_come_together_with_a_stop_string_but_after_it_do_not_count() -> None:
    token_ids = TOKENIZER.encode("a.b")
    deltas = await collect(FakeBackend([TokenDelta(start_index=0, token_ids=token_ids)]), stop=(".",))
    assert text_of(deltas) == "a"
    assert deltas[-1].token_ids == token_ids[:2]
    assert deltas[-1].usage is not None
    assert deltas[-1].usage.num_output_tokens == 2


async def test_what_was_held_back_for_a_stop_string_comes_with_the_end() -> None:
    assert text_of(await collect(FakeBackend(say("to be st")), stop=("stop",))) == "to be st"


async def test_a_stop_string_in_the_very_last_token_is_a_stop() -> None:
    backend = FakeBackend(say("end."))
    deltas = await collect(backend, stop=(".",))
    assert (text_of(deltas), deltas[-1].finish_reason) == ("end", FinishReason.STOP)
    assert not backend.was_closed["r"].is_set()  # it was over anyway


async def test_a_stop_token_is_a_token_of_the_output_but_no_text() -> None:
    bang = TOKENIZER.encode("!")
    deltas = await collect(FakeBackend(say("hi!", finish=FinishReason.STOP)), stop_token_ids=bang)
    assert text_of(deltas) == "hi"
    assert deltas[-1].token_ids == bang


async def test_ids_and_eos_reach_the_backend_resolved() -> None:
    backend = FakeBackend(say("x"))
    await collect(backend, (5, 6, 7), seed=9, max_tokens=3)
    assert backend.last.prompt_token_ids == (5, 6, 7)
    assert backend.last.sampling_params.seed == 9
    assert backend.last.sampling_params.stop_token_ids == {EOS_ID}


async def test_a_seed_and_an_id_are_drawn_when_there_is_none() -> None:
    backend = FakeBackend(say("x"))
    for _ in range(2):
        [_ async for _ in make_generator(backend).generate(GenerateRequest(prompt="hi"))]
    first, second = backend.submitted
    assert first.request_id != second.request_id
    assert first.sampling_params.seed != second.sampling_params.seed


async def test_the_deadline_counts_from_the_arrival_and_has_a_default() -> None:
    backend = FakeBackend(say("x"))
    generator = make_generator(backend, limits=Limits(default_timeout_s=50))
    before_s = time.monotonic()
    for timeout_s in (None, 5):
        [_ async for _ in generator.generate(GenerateRequest(prompt="hi", timeout_s=timeout_s))]
    by_default, asked = (request.deadline_s for request in backend.submitted)
    assert by_default is not None
    assert asked is not None
    assert before_s + 5 <= asked < before_s + 50 <= by_default


async def test_a_long_text_is_tokenised_as_a_short_one_is() -> None:
    backend = FakeBackend(say("x"))
    with pytest.raises(InvalidRequest, match="tokens"):
        await collect(backend, "word " * 5000)


async def test_closing_the_generator_aborts_the_request() -> None:
    backend = FakeBackend([*say("one", finish=None), HOLD])
    async with aclosing(make_generator(backend).generate(GenerateRequest(prompt="hi", request_id="r"))) as deltas:
        await anext(deltas)
        assert not backend.was_closed["r"].is_set()
    assert backend.was_closed["r"].is_set()


@pytest.mark.parametrize(
    ("last", "error"),
    [
        (InstanceLost("d0: gone"), InstanceLost),
        (TokenDelta(start_index=0, token_ids=(), finish_reason=FinishReason.ABORT), DeadlineExceeded),
        (TokenDelta(start_index=0, token_ids=(), finish_reason=FinishReason.ERROR), GenerationFailed),
        (TokenDelta(start_index=7, token_ids=(5,)), GenerationFailed),
    ],
)
async def test_what_goes_wrong_is_an_error_and_never_an_empty_success(last: Any, error: type[BatonError]) -> None:
    with pytest.raises(error):
        await collect(FakeBackend([last]))


async def test_tokens_that_end_without_a_reason_are_an_error() -> None:
    with pytest.raises(GenerationFailed, match="without a finish reason"):
        await collect(FakeBackend(say("one", finish=None)))


async def test_requests_and_their_tokens_are_counted() -> None:
    backend = FakeBackend(say("one two"))
    generator = make_generator(backend)
    request = GenerateRequest(prompt=(5, 6, 7))
    num_tokens = len([delta async for delta in generator.generate(request)])
    async with aclosing(generator.generate(request)) as deltas:
        await anext(deltas)
    backend.refusal = QueueFull(1.0)
    with pytest.raises(QueueFull):
        await anext(generator.generate(request))
    samples = samples_of(generator.metrics)
    assert samples["vllm:prompt_tokens_total"] == 6
    assert samples["vllm:generation_tokens_total"] == num_tokens + 1
    assert samples["baton:request_failure_total", "QueueFull"] == 1
    assert samples["vllm:time_to_first_token_seconds_count"] == 2
    assert samples["vllm:inter_token_latency_seconds_count"] == num_tokens - 1
    assert samples["baton:second_token_seconds_count"] == 1
    assert samples["vllm:e2e_request_latency_seconds_count"] == 1


def samples_of(metrics: Metrics) -> dict[Any, float]:
    """Values by name, or by name and the label that tells samples of a name apart."""
    samples: dict[Any, float] = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            label = sample.labels.get("finished_reason") or sample.labels.get("error")
            samples[(sample.name, label) if label else sample.name] = sample.value
    return samples
