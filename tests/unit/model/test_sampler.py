from collections import Counter

import pytest
import torch

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import Sequence
from cluster.model.counter_hash import GOLDEN_GAMMA, exponentials, key, mix, mix_tensor
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


def test_draws_from_a_large_vocabulary_follow_the_softmax():
    """Its tail has a runner of its own: half of the weight is on ten tokens, half on all the others."""
    probabilities = torch.full((8000,), 0.5 / 7990)
    probabilities[:10] = 0.05
    counts = draw(4000, probabilities.log(), seed=5)
    groups = Counter(min(token, 10) + (token >= 4000) for token in counts.elements())
    expected = torch.tensor([0.05] * 10 + [0.5 * 3990 / 7990, 0.5 * 4000 / 7990])
    assert chi_square(groups, expected) < 31.3  # 11 degrees of freedom, p = 0.001


def test_times_depend_on_seed_position_and_token():
    keys = torch.tensor([key(seed, position) for seed in range(-20, 20) for position in range(25)])
    times = exponentials(keys, torch.arange(10)[None])
    assert len(times.unique()) == times.numel()
    assert times.min() > 0
    assert times.mean().item() == pytest.approx(1.0, abs=0.05)
    assert times.std().item() == pytest.approx(1.0, abs=0.05)
    assert key(7, 9) == key(7 + 2**64, 9)


@pytest.mark.parametrize("vocab_size", [2000, 6000])
def test_the_last_bits_of_the_logits_do_not_choose(vocab_size):
    """They depend on what else is in a batch, and on threads. Among cumulative weights every boundary would move."""
    logits = make_logits(500, vocab_size) * 0.1
    sequences = [make_sequence(n + 1, seed=n) for n in range(500)]
    noisy = logits * (1 + 1e-7 * torch.randn(logits.shape, generator=torch.Generator().manual_seed(1)))
    drawn, again = sample(logits, sequences), sample(noisy, sequences)
    assert [token.token_id for token in drawn] == [token.token_id for token in again]


def test_the_hash_of_a_tensor_is_the_hash_of_its_values():
    values = [0, 1, 2**63 - 1, 2**63, 2**64 - 1, GOLDEN_GAMMA]
    signed = torch.tensor([value - 2**64 if value >= 2**63 else value for value in values])
    assert [value % 2**64 for value in mix_tensor(signed).tolist()] == [mix(value) for value in values]


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
