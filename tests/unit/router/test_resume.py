"""Where a client goes on: a point that is wrong in any way is never taken for right."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.resume import NUM_HASH_BYTES, EventIds, ResumePoint, TokensHash

pytestmark = pytest.mark.unit

TOKEN_IDS = st.lists(st.integers(0, 2**32 - 1), max_size=20)


@given(TOKEN_IDS, TOKEN_IDS)
def test_the_hash_does_not_depend_on_how_the_tokens_came(first: list[int], second: list[int]) -> None:
    grown = TokensHash(first)
    grown.update(second)
    assert grown.digest() == TokensHash([*first, *second]).digest()
    assert grown.num_tokens == len(first) + len(second)


def test_the_hash_is_what_other_clients_can_compute() -> None:
    assert TokensHash([1, 2, 3]).digest().hex() == "d69c56745f6a3d9e"
    assert len(TokensHash().digest()) == NUM_HASH_BYTES


@given(TOKEN_IDS, TOKEN_IDS)
def test_a_point_is_after_its_own_tokens_only(mine: list[int], others: list[int]) -> None:
    assert ResumePoint.after("r", mine).is_after(others) == (mine == others)


@given(st.text(st.characters(codec="utf-8"), min_size=1), TOKEN_IDS)
def test_an_event_id_is_read_back_and_fits_a_header(request_id: str, token_ids: list[int]) -> None:
    event_id = EventIds(request_id).after(token_ids)
    assert event_id.isascii()
    assert event_id.isprintable()
    assert ResumePoint.from_event_id(event_id) == ResumePoint.after(request_id, token_ids)


@pytest.mark.parametrize(
    "event_id",
    [
        "",
        "r",
        "r:1",
        "r:x:0011223344556677",
        "r:-1:0011223344556677",
        "r:²:0011223344556677",
        "r:1:00112233",
        "r:1:zz11223344556677",
        ":1:0011223344556677",
        "r:99999999999:0011223344556677",
        "%ff:1:0011223344556677",
        "a:b:1:0011223344556677",
    ],
)
def test_what_is_no_event_id_is_refused(event_id: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        ResumePoint.from_event_id(event_id)
