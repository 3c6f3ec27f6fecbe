from collections import Counter

import pytest
import torch

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence
from cluster.model.counter_hash import GOLDEN_GAMMA, mix, uniform
from cluster.model.errors import NonFiniteLogits
from cluster.model.sampler import sample

pytestmark = pytest.mark.unit

PROBABILITIES = torch.tensor([0.05, 0.4, 0.1, 0.25, 0.2])
LOGITS = PROBABILITIES.log()


def make_sequence(num_tokens: int = 1, *, request_id: str = "a", **params) -> Sequence:
    return Sequence(
        request_id=request_id,
        prompt_token_ids=(0,) * num_tokens,
        sampling_params=SamplingParams(**params),
        arrival_time_s=0.0,
    )


def make_logits(num_rows: int, vocab_size: int = 3000, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(num_rows, vocab_size, generator=torch.Generator().manual_seed(seed))


def draw(num_draws: int, logits: torch.Tensor = LOGITS, **params) -> Counter[int]:
    """Counts of tokens over as many positions."""
    sequences = [make_sequence(position + 1, **params) for position in range(num_draws)]
    return Counter(token.token_id for token in sample(logits.expand(num_draws, -1), sequences))


def chi_square(counts: Counter[int], probabilities: torch.Tensor) -> float:
    total = counts.total()
    return sum(
        (counts[index] - total * p) ** 2 / (total * p) for index, p in enumerate(probabilities.tolist()) if p > 0
    )


def test_greedy_takes_the_best():
    sequences = [make_sequence(temperature=0.0) for _ in range(4)]
    logits = make_logits(4)
    assert [token.token_id for token in sample(logits, sequences)] == logits.argmax(dim=-1).tolist()


@pytest.mark.parametrize("seed", [0, 1, 2**63, 12345])
def test_draws_follow_the_softmax(seed):
    assert chi_square(draw(4000, temperature=1.0, seed=seed), PROBABILITIES) < 18.5  # 4 degrees of freedom, p = 0.001


def test_draws_of_many_seeds_at_one_position_follow_the_softmax_too():
    sequences = [make_sequence(7, seed=seed) for seed in range(4000)]
    counts = Counter(token.token_id for token in sample(LOGITS.expand(4000, -1), sequences))
    assert chi_square(counts, PROBABILITIES) < 18.5


@pytest.mark.parametrize("temperature", [9e-6, 1e-30, 1e-38, 1e-45])
@pytest.mark.parametrize("others", [{}, {"top_k": 5}, {"top_p": 0.9}])
def test_next_to_no_temperature_takes_the_best(temperature, others):
    logits = 20 * make_logits(1)
    (token,) = sample(logits, [make_sequence(temperature=temperature, **others)])
    assert token.token_id == int(logits.argmax())


def test_temperature_sharpens_and_flattens():
    for temperature in (0.5, 2.0):
        expected = torch.softmax(LOGITS / temperature, dim=-1)
        assert chi_square(draw(4000, temperature=temperature), expected) < 18.5


@pytest.mark.parametrize(
    ("params", "kept"),
    [
        ({"top_k": 1}, {1}),
        ({"top_k": 2}, {1, 3}),
        ({"top_k": 5}, {0, 1, 2, 3, 4}),
        ({"top_p": 0.39}, {1}),
        ({"top_p": 0.41}, {1, 3}),
        ({"top_p": 0.84}, {1, 3, 4}),
        ({"top_p": 0.0}, {1}),
        ({"top_k": 3, "top_p": 0.75}, {1, 3}),  # of the three that top_k leaves, two make 0.65 / 0.85
        ({"top_k": 3, "top_p": 0.78}, {1, 3, 4}),
    ],
)
def test_top_k_and_top_p_leave_the_best_and_their_proportions(params, kept):
    counts = draw(1500, **params)
    assert set(counts) == kept
    left = torch.tensor([p if index in kept else 0.0 for index, p in enumerate(PROBABILITIES.tolist())])
    assert chi_square(counts, left / left.sum()) < 18.5


def test_a_flat_distribution_has_a_nucleus_larger_than_the_candidates():
    counts = draw(200, torch.zeros(4000), top_p=0.9)
    assert max(counts) < 3601
    assert max(counts) > 3000


def test_a_draw_is_the_same_whatever_else_is_in_the_batch():
    kinds = [{}, {"top_k": 5}, {"top_k": 50, "top_p": 0.8}, {"top_p": 0.9}, {"top_p": 0.9999}, {"temperature": 0.0}]
    sequences = [make_sequence(3 + n, seed=n, **kinds[n % len(kinds)], logprobs=n % 3) for n in range(24)]
    logits = make_logits(24).to(torch.bfloat16).float()  # with ties
    together = sample(logits, sequences)
    for row in range(24):
        assert sample(logits[row : row + 1], [sequences[row]])[0].token_id == together[row].token_id
    backwards = sample(logits.flip(0), sequences[::-1])
    assert [token.token_id for token in backwards[::-1]] == [token.token_id for token in together]


def test_a_uniform_number_depends_on_seed_and_position():
    values = {uniform(seed, position) for seed in range(-50, 50) for position in range(100)}
    assert len(values) > 9990
    assert all(0 <= value < 1 for value in values)
    assert abs(sum(values) / len(values) - 0.5) < 0.01
    assert uniform(7, 9) == uniform(7, 9)
    assert uniform(7, 9) == uniform(7 + 2**64, 9)


def test_the_hash_is_splitmix64():
    """The first outputs for seed 0, by the author's C code (Vigna's splitmix64.c)."""
    assert [mix((n * GOLDEN_GAMMA) % 2**64) for n in (1, 2)] == [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4]


def test_logprobs_are_of_the_models_own_distribution():
    logits = make_logits(3)
    sequences = [
        make_sequence(temperature=0.0, logprobs=0),
        make_sequence(temperature=0.3, top_k=2, logprobs=4),
        make_sequence(),
    ]
    tokens = sample(logits, sequences)
    expected = torch.log_softmax(logits, dim=-1)
    for row in (0, 1):
        assert tokens[row].logprobs.logprob == pytest.approx(expected[row, tokens[row].token_id].item())
    assert tokens[0].logprobs.top == ()
    best, ids = expected[1].topk(4)
    assert [token_id for token_id, _ in tokens[1].logprobs.top] == ids.tolist()
    assert [value for _, value in tokens[1].logprobs.top] == pytest.approx(best.tolist())
    assert tokens[2].logprobs is None


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_name_their_request(bad, temperature):
    logits = make_logits(3)
    logits[1, 2999] = bad
    sequences = [make_sequence(request_id=name, temperature=temperature) for name in "abc"]
    with pytest.raises(NonFiniteLogits, match="request b") as caught:
        sample(logits, sequences)
    assert caught.value.request_ids == ("b",)
