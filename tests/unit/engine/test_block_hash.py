import pytest

from cluster.engine.block_hash import HASH_BYTES, hash_blocks

pytestmark = pytest.mark.unit


def test_only_full_blocks_have_a_hash() -> None:
    assert hash_blocks([1, 2, 3], 4) == []
    assert [len(block_hash) for block_hash in hash_blocks(range(9), 4)] == [HASH_BYTES, HASH_BYTES]


def test_a_hash_speaks_for_everything_before_its_block() -> None:
    one, other = hash_blocks([1, 2, 3, 4], 2), hash_blocks([9, 2, 3, 4], 2)
    assert one[0] != other[0]
    assert one[1] != other[1]


def test_the_chain_goes_on_where_it_ended() -> None:
    whole = hash_blocks(range(12), 4)
    assert whole[:1] + hash_blocks(range(4, 12), 4, whole[:1]) == whole


def test_the_hash_is_the_same_in_every_process_and_release() -> None:
    assert hash_blocks([1, 2], 2)[0].hex() == "2cc5e4d47c5f3c5fbe635a5a5b7bb392"


def test_order_and_width_of_tokens_count() -> None:
    assert len({hash_blocks(tokens, 2)[0] for tokens in ([1, 2], [2, 1], [258, 0], [0, 258], [1, 512])}) == 5
