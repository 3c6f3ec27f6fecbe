from itertools import pairwise

import pytest

from deploy.workload.arrivals import draw_arrivals, mean_rate, speed_up
from deploy.workload.prompts import PromptMaker
from deploy.workload.request import WorkloadRequest
from deploy.workload.scaling import fit_to_context

pytestmark = pytest.mark.unit


def make_request(prompt=100, output=10, arrival_s=None, **options):
    return WorkloadRequest(arrival_s=arrival_s, num_prompt_tokens=prompt, num_output_tokens=output, **options)


def test_drawn_arrivals_have_the_rate_asked_for_and_come_again_with_the_seed():
    requests = draw_arrivals([make_request()] * 4000, rate=8.0, seed=1)
    assert requests[0].arrival_s == 0.0
    assert mean_rate(requests) == pytest.approx(8.0, rel=0.1)
    assert requests == draw_arrivals([make_request()] * 4000, rate=8.0, seed=1)
    assert requests != draw_arrivals([make_request()] * 4000, rate=8.0, seed=2)


@pytest.mark.parametrize(("burstiness", "expected_cv"), [(1.0, 1.0), (0.25, 2.0)])
def test_gaps_vary_as_much_as_the_burstiness_says(burstiness, expected_cv):
    times = [r.arrival_s for r in draw_arrivals([make_request()] * 20_000, rate=1.0, burstiness=burstiness)]
    gaps = [after - before for before, after in pairwise(times)]
    mean = sum(gaps) / len(gaps)
    cv = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5 / mean
    assert cv == pytest.approx(expected_cv, rel=0.1)


def test_speeding_up_keeps_the_pattern():
    requests = speed_up([make_request(arrival_s=time) for time in (0.0, 4.0, 6.0)], 2.0)
    assert [request.arrival_s for request in requests] == [0.0, 2.0, 3.0]


def test_requests_that_all_arrive_at_once_have_no_rate():
    assert mean_rate([make_request(arrival_s=0.0)]) is None


def test_lengths_that_fit_are_left_alone():
    requests = [make_request(90, 10)]
    assert fit_to_context(requests, 100) == (requests, 1.0)


def test_lengths_too_long_are_all_scaled_by_one_factor():
    requests, factor = fit_to_context([make_request(1800, 200), make_request(100, 1), make_request(900, 100)], 100)
    assert factor == 0.05
    assert [(r.num_prompt_tokens, r.num_output_tokens) for r in requests] == [(90, 10), (5, 1), (45, 5)]


def test_prompts_are_as_long_as_asked_and_come_again_with_the_seed():
    requests = [make_request(7), make_request(7)]
    first, second = PromptMaker(50, seed=3).make(requests)
    assert len(first) == len(second) == 7
    assert first != second
    assert PromptMaker(50, seed=3).make(requests) == [first, second]
    assert PromptMaker(50, seed=4).make(requests) != [first, second]


def test_prompts_hold_no_special_token():
    [prompt] = PromptMaker(4, special_token_ids=[0, 2]).make([make_request(200)])
    assert set(prompt) == {1, 3}


def test_equal_hash_ids_are_equal_prefixes():
    requests = [
        make_request(25, hash_ids=(7, 8, 9), hash_block_tokens=10),
        make_request(30, hash_ids=(7, 8, 4), hash_block_tokens=10),
    ]
    first, second = PromptMaker(1000).make(requests)
    assert (len(first), len(second)) == (25, 30)
    assert first[:20] == second[:20]
    assert first[20:] != second[20:25]


def test_a_prompt_longer_than_its_hash_ids_say_is_filled_with_tokens_of_its_own():
    requests = [make_request(25, hash_ids=(7,), hash_block_tokens=10)] * 2
    first, second = PromptMaker(1000).make(requests)
    assert first[:10] == second[:10]
    assert first[10:] != second[10:]
