"""Stop strings end a text at the same place however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.text.detokenizer import Detokenizer
from cluster.text.stop_strings import StopStrings
from tests.unit.text.factories import make_tokenizer, vocab_size

pytestmark = pytest.mark.unit

TOKENIZER = make_tokenizer()
FEW_LETTERS = st.text("aab🙂", min_size=1, max_size=4)  # so that stop strings overlap and recur


def until_first_stop(text: str, stop: list[str]) -> str:
    """The definition: cut where the stop string begins that is complete first, the longest of those."""
    ends = [(text.index(each) + len(each), text.index(each)) for each in stop if each in text]
    return text[: min(ends)[1]] if ends else text


def pass_through(pieces: list[str], stop: list[str]) -> tuple[list[str], bool]:
    matcher = StopStrings(stop)
    return [*(matcher.push(piece) for piece in pieces), matcher.flush()], matcher.matched


@given(st.lists(FEW_LETTERS, max_size=12), st.lists(FEW_LETTERS, max_size=3))
def test_the_text_ends_before_the_stop_string_that_is_complete_first(pieces: list[str], stop: list[str]) -> None:
    text = "".join(pieces)
    passed, matched = pass_through(pieces, stop)
    assert "".join(passed) == until_first_stop(text, stop)
    assert matched == any(each in text for each in stop)


@given(st.lists(st.integers(0, vocab_size() - 1), max_size=40), st.data())
def test_tokens_to_text_to_the_first_stop_string(token_ids: list[int], data: st.DataObject) -> None:
    text = TOKENIZER.decode(token_ids)
    some_part = st.integers(0, max(0, len(text) - 1)).map(lambda start: text[start : start + 3] or "x")
    stop = data.draw(st.lists(st.one_of(some_part, FEW_LETTERS), max_size=3))
    detokenizer = Detokenizer(TOKENIZER)
    pieces = [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]
    assert "".join(pass_through(pieces, stop)[0]) == until_first_stop(text, stop)


def test_only_what_may_begin_a_stop_string_is_held_back() -> None:
    matcher = StopStrings(["</end>"])
    assert matcher.push("one <") == "one "
    assert matcher.push("/e") == ""
    assert matcher.push("a>") == "</ea>"
    assert matcher.push("</en") == ""
    assert matcher.flush() == "</en"


def test_text_after_a_match_is_dropped() -> None:
    matcher = StopStrings(["."])
    assert matcher.push("One. Two.") == "One"
    assert matcher.matched
    assert matcher.push("Three") == matcher.flush() == ""


def test_the_stop_string_complete_first_wins_over_one_that_began_earlier() -> None:
    assert pass_through(["xabcd"], ["abcd", "bc"])[0] == ["xa", ""]
