import pytest
import torch

from cluster.model.attention import Span
from cluster.model.batch import Batch
from cluster.ranks.step_frame import decode, encode

pytestmark = pytest.mark.unit

DECODES = (
    Span(block_table=[7, 0, 41], start=20, num_tokens=1),
    Span(block_table=[3], start=4, num_tokens=1),
)
CHUNK = Span(block_table=[9, 10], start=8, num_tokens=5)


def make_batch(spans, last_rows):
    positions = [position for span in spans for position in range(span.start, span.end)]
    return Batch(
        spans=spans,
        token_ids=torch.arange(len(positions)) + 151_000,
        positions=torch.tensor(positions),
        last_rows=torch.tensor(last_rows, dtype=torch.long),
    )


@pytest.mark.parametrize(("spans", "last_rows"), [(DECODES, [1, 0]), ((*DECODES, CHUNK), [0, 1, 6]), ((CHUNK,), [])])
def test_a_step_is_the_same_on_every_rank(spans, last_rows):
    batch = make_batch(spans, last_rows)
    told = decode(encode(batch))
    assert told.spans == batch.spans
    for name in ("token_ids", "positions", "last_rows"):
        assert torch.equal(getattr(told, name), getattr(batch, name))
        assert getattr(told, name).dtype == torch.int64
