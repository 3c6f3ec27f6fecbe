import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.links.nccl_messages import (
    STAGING_BYTES,
    STRAIGHT_BYTES,
    is_contiguous,
    plan_messages,
    spans,
    staging_blocks,
)

pytestmark = pytest.mark.unit

RECORD_BYTES = STRAIGHT_BYTES // 4  # four blocks go straight, 32 fit into half of the staging


def test_a_run_in_one_piece_at_both_ends_is_one_message_of_any_length():
    assert plan_messages(range(100), range(500, 600), RECORD_BYTES) == [100]


def test_scattered_blocks_are_gathered_up_to_the_staging():
    scattered = range(0, 140, 2)
    assert plan_messages(scattered, scattered, RECORD_BYTES) == [32, 32, 6]


def test_a_long_run_between_scattered_blocks_goes_by_itself():
    ids = [9, 7, *range(20, 24), 1, 3, 5]
    assert plan_messages(ids, ids, RECORD_BYTES) == [2, 4, 3]


def test_a_short_run_is_gathered():
    ids = [9, 20, 21, 22, 1]
    assert plan_messages(ids, ids, RECORD_BYTES) == [5]


def test_what_is_contiguous_at_one_end_only_is_cut_to_the_others_staging():
    assert plan_messages(range(40), range(0, 80, 2), RECORD_BYTES) == [32, 8]


def test_a_block_larger_than_the_staging_goes_alone():
    assert plan_messages([5, 3], [1, 2], STAGING_BYTES + 1) == [1, 1]


ids = st.integers(1, 80).flatmap(lambda n: st.tuples(*[st.lists(st.integers(0, 30), min_size=n, max_size=n)] * 2))


@given(ids, st.sampled_from([RECORD_BYTES, STAGING_BYTES // 3, STRAIGHT_BYTES * 2]))
def test_a_plan_covers_all_blocks_and_no_end_needs_more_staging_than_there_is(both, record_bytes):
    source_ids, target_ids = both
    messages = plan_messages(source_ids, target_ids, record_bytes)
    assert sum(messages) == len(source_ids)
    assert all(messages)
    for span in spans(messages):
        for block_ids in both:
            assert is_contiguous(block_ids[span]) or len(block_ids[span]) <= staging_blocks(record_bytes)


def test_one_file_alone_touches_cupy():
    root = Path(__file__).parents[3]
    packages = ("cluster", "prefill_workers", "decode_workers", "router", "deploy")
    named = re.compile(r"""^\s*(import|from) cupy|import_module\(["']cupy""", re.MULTILINE)
    files = [file for package in packages for file in (root / package).rglob("*.py")]
    assert [file.name for file in files if named.search(file.read_text())] == ["nccl.py"]
