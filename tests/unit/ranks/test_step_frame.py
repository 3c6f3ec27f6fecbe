import pytest
import torch

from cluster.model.attention import Span
from cluster.model.batch import Batch
from cluster.ranks.step_frame import StepDecoder, StepEncoder

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
    assert_same(StepDecoder().decode(StepEncoder().encode(batch)), batch)


def test_of_a_table_only_what_is_new_is_told():
    encoder, decoder, tables = StepEncoder(), StepDecoder(), [list(range(1000)), [3], [9, 10]]
    sizes = []
    for step in range(5):
        tables[0].append(2000 + step)
        if step == 2:
            tables[1:] = [[5, 6], [9, 10]]  # others took their place
        if step == 3:
            tables.pop(0)
        spans = tuple(Span(block_table=table, start=8 * len(table) - 1, num_tokens=1) for table in tables)
        batch = make_batch(spans, list(range(len(spans))))
        frame = encoder.encode(batch)
        before = decoder.tables
        told = decoder.decode(frame)
        assert_same(told, batch)
        sizes.append(len(frame))
        if step in (1, 2):
            assert told.spans[0].block_table is before[0]
    assert sizes[0] > 4000
    assert max(sizes[1:3]) < 200


def assert_same(told, batch):
    assert told.spans == batch.spans
    for name in ("token_ids", "positions", "last_rows"):
        assert torch.equal(getattr(told, name), getattr(batch, name))
        assert getattr(told, name).dtype == torch.int64
