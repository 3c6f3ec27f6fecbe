"""What is drawn on a GPU is what is drawn on a CPU from the same logits."""

import pytest
import torch

from cluster.model.errors import NonFiniteLogits
from cluster.model.sampler import sample
from tests.unit.model.test_sampler import make_logits, make_sequence

pytestmark = pytest.mark.gpu

if not torch.cuda.is_available():
    pytest.skip("GPU tests need a GPU, and a torch that is built for it", allow_module_level=True)


@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize("vocab_size", [3000, 32_000])
def test_greedy_rows_alone_and_beside_drawn_ones_are_those_of_a_cpu(mixed, vocab_size):
    logits = make_logits(8, vocab_size)
    logits[:, 7] = logits[:, 11] = 50.0  # the first of the greatest
    drawn = {"temperature": 1.0, "seed": 3} if mixed else {"temperature": 0.0}
    sequences = [make_sequence(row + 1, **(drawn if row % 2 else {"temperature": 0.0})) for row in range(8)]
    found = sample(logits.cuda(), sequences)
    assert found == sample(logits, sequences)
    assert [token.token_id for token in found][::2] == [7] * 4


def test_a_row_without_a_number_is_named():
    logits = make_logits(3)
    logits[1, 5] = float("nan")
    sequences = [make_sequence(request_id=name, temperature=0.0) for name in "abc"]
    with pytest.raises(NonFiniteLogits) as caught:
        sample(logits.cuda(), sequences)
    assert caught.value.request_ids == ("b",)
