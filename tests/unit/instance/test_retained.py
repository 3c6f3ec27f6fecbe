"""How much of what ended is kept, and who is told of it."""

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.instance.retained import Retained
from cluster.messages import Epoch, Held, SequenceState

pytestmark = pytest.mark.unit


def ended(request_id: str, front: str = "router/1", num_prompt: int = 3, num_output: int = 2) -> Held:
    state = SequenceState(
        request_id=request_id,
        front=front,
        prompt_token_ids=(1,) * num_prompt,
        output_token_ids=(2,) * num_output,
        sampling_params=SamplingParams(),
        arrival_time_s=0.0,
    )
    return Held(state=state, epoch=Epoch(1, 1), outranks=Epoch(1, 1))


def names(retained: Retained, front: str = "router/2") -> list[str]:
    return [held.state.request_id for held in retained.of(front)]


def test_only_so_many_tokens_are_kept_and_the_oldest_go() -> None:
    retained = Retained(30.0, max_num_tokens=12)
    for number, request_id in enumerate("abc"):
        retained.put(ended(request_id), float(number))
    assert names(retained) == ["b", "c"]
    retained.put(ended("d", num_prompt=12, num_output=0), 3.0)
    assert names(retained) == ["d"]
    retained.put(ended("e", num_prompt=13, num_output=0), 4.0)
    assert names(retained) == []


def test_room_comes_back_with_what_is_dropped_expired_or_put_again() -> None:
    retained = Retained(30.0, max_num_tokens=10)
    retained.put(ended("a"), 0.0)
    retained.put(ended("a"), 1.0)
    retained.put(ended("b"), 2.0)
    assert names(retained) == ["a", "b"]
    retained.drop("a")
    retained.drop("never")
    retained.put(ended("c"), 3.0)
    assert names(retained) == ["b", "c"]
    retained.expire(32.5)
    retained.put(ended("d"), 33.0)
    assert names(retained) == ["c", "d"]


def test_only_so_many_are_kept() -> None:
    retained = Retained(30.0, capacity=2)
    for request_id in "abc":
        retained.put(ended(request_id), 0.0)
    assert names(retained) == ["b", "c"]


def test_a_life_that_comes_back_is_told_of_earlier_ones_only() -> None:
    retained = Retained(30.0)
    retained.put(ended("a", "router/1"), 0.0)
    retained.put(ended("b", "router/2"), 1.0)
    retained.put(ended("c", "other/1"), 2.0)
    assert names(retained, "router/2") == ["a"]
    assert names(retained, "router/3") == ["a", "b"]
