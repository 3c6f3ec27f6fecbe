"""What kernels are told of a step."""

import numpy as np
import pytest

from cluster.model.attention import Span
from cluster.model.step_tensors import make_block_tables

pytestmark = pytest.mark.unit


def test_tables_are_as_wide_as_the_longest_context_and_say_nothing_of_blocks_behind_it():
    spans = [Span(block_table=[5, 2, 9, 7], start=8, num_tokens=1), Span(block_table=(3, 4), start=3, num_tokens=1)]
    tables, contexts = make_block_tables(spans, block_size=4)
    assert tables.tolist() == [[5, 2, 9], [3, 0, 0]]
    assert contexts.tolist() == [9, 4]
    assert tables.dtype == contexts.dtype == np.int32


def test_no_spans_are_no_rows():
    tables, contexts = make_block_tables([], block_size=4)
    assert tables.shape == (0, 0)
    assert contexts.shape == (0,)
