"""Every bad field of a request is refused by its name."""

import math
from dataclasses import replace
from typing import Any

import pytest

from router.errors import DeadlineExceeded, InvalidRequest
from router.validation import (
    GenerateRequest,
    Limits,
    RequestedSampling,
    check_prompt_tokens,
    check_request,
    resolve_sampling,
)
from tests.unit.router_fronts.factories import EOS_ID, make_model_info

pytestmark = pytest.mark.unit

MODEL = make_model_info(max_model_len=100)


def resolve(num_prompt_tokens: int = 10, **asked: Any) -> Any:
    return resolve_sampling(
        RequestedSampling(**asked), num_prompt_tokens=num_prompt_tokens, seed=42, model=MODEL, limits=Limits()
    )


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", -0.1),
        ("temperature", 1e6),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", 0.0),
        ("top_p", 1.1),
        ("top_p", math.nan),
        ("top_k", -1),
        ("top_k", 2**31),
        ("seed", -1),
        ("seed", 2**64),
        ("max_tokens", 0),
        ("max_tokens", -5),
        ("max_tokens", 91),
        ("max_tokens", 10**30),
        ("logprobs", -1),
        ("logprobs", 21),
        ("stop", ("",)),
        ("stop", ("x" * 257,)),
        ("stop", ("x",) * 17),
        ("stop", ("\ud800",)),
        ("stop_token_ids", (10**6,)),
        ("stop_token_ids", (-1,)),
        ("stop_token_ids", (1,) * 257),
    ],
)
def test_a_bad_sampling_parameter_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        resolve(**{field: value})
    assert refused.value.field == field


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"prompt": ()}, "prompt"),
        ({"prompt": "half \udcff"}, "prompt"),
        ({"request_id": "x" * 129}, "request_id"),
        ({"request_id": "\ud800"}, "request_id"),
        ({"priority": 2**31}, "priority"),
        ({"timeout_s": math.nan}, "timeout_s"),
    ],
)
def test_a_bad_request_is_refused_by_the_field_s_name(change: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        check_request(replace(GenerateRequest(prompt="hi"), **change), Limits())
    assert refused.value.field == field


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, -math.inf])
def test_a_deadline_that_has_passed_is_exceeded(timeout_s: float) -> None:
    with pytest.raises(DeadlineExceeded):
        check_request(GenerateRequest(prompt="hi", timeout_s=timeout_s), Limits())


@pytest.mark.parametrize(
    ("token_ids", "said"),
    [
        ((), "must not be empty"),
        ((1, -1), "-1 is not in the vocabulary"),
        ((1, MODEL.vocab_size), f"{MODEL.vocab_size} is not in the vocabulary"),
        ((1,) * 100, "has 100 tokens"),
    ],
)
def test_bad_prompt_tokens_are_refused(token_ids: tuple[int, ...], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        check_prompt_tokens(token_ids, MODEL)


def test_a_prompt_that_leaves_room_for_one_token_is_taken() -> None:
    check_prompt_tokens((MODEL.vocab_size - 1,) * 99, MODEL)
    assert resolve(num_prompt_tokens=99).max_tokens == 1


def test_what_was_not_said_has_its_default() -> None:
    params = resolve()
    assert (params.temperature, params.top_p, params.top_k, params.seed, params.max_tokens) == (1.0, 1.0, 0, 42, 90)
    assert params.stop_token_ids == {EOS_ID}
    assert params.logprobs is None


def test_eos_stops_beside_the_stop_ids_asked_for_unless_it_is_ignored() -> None:
    assert resolve(stop_token_ids=(7,)).stop_token_ids == {7, EOS_ID}
    assert resolve(stop_token_ids=(7,), ignore_eos=True).stop_token_ids == {7}


def test_the_borders_themselves_are_allowed() -> None:
    params = resolve(temperature=0, top_p=1, top_k=0, seed=2**64 - 1, max_tokens=90, logprobs=20)
    assert params.seed == 2**64 - 1
