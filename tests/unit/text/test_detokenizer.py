"""Whatever the tokens are, the pieces of text are final and make up the decoded whole."""

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models

from cluster.text.detokenizer import REPLACEMENT, Detokenizer
from tests.unit.text.factories import make_tokenizer, vocab_size

pytestmark = pytest.mark.unit

TOKENIZER = make_tokenizer()
ANY_TOKENS = st.lists(st.integers(0, vocab_size() + 5), max_size=40)  # special ones, and ones beyond the tokenizer, too
HALF_EMOJI = list(TOKENIZER.encode("🙃"))[:2]


def pieces_of(token_ids: list[int], prompt: list[int] | tuple[int, ...] = ()) -> list[str]:
    detokenizer = Detokenizer(TOKENIZER, prompt)
    return [*(detokenizer.push(token_id) for token_id in token_ids), detokenizer.flush()]


@given(ANY_TOKENS)
def test_the_pieces_of_any_tokens_make_up_their_text(token_ids: list[int]) -> None:
    assert "".join(pieces_of(token_ids)) == TOKENIZER.decode(token_ids)


@given(st.text(), st.text())
def test_a_prompt_before_them_changes_nothing_for_a_byte_level_tokenizer(prompt: str, text: str) -> None:
    assert "".join(pieces_of(list(TOKENIZER.encode(text)), TOKENIZER.encode(prompt))) == text


@given(ANY_TOKENS, ANY_TOKENS)
def test_an_output_is_complete_even_after_a_prompt_that_ends_inside_a_character(
    prompt: list[int], token_ids: list[int]
) -> None:
    assert "".join(pieces_of(token_ids, prompt)) == TOKENIZER.decode(token_ids)


@given(st.text())
def test_no_piece_of_valid_text_has_half_a_character(text: str) -> None:
    pieces = pieces_of(list(TOKENIZER.encode(text)))
    assert "".join(pieces).count(REPLACEMENT) == text.count(REPLACEMENT)


def test_a_character_comes_with_the_token_that_completes_it() -> None:
    token_ids = list(TOKENIZER.encode("a🙃b"))
    assert [piece for piece in pieces_of(token_ids) if piece] == ["a", "🙃", "b"]


def test_an_incomplete_character_at_the_end_is_shown_as_a_replacement() -> None:
    assert pieces_of(HALF_EMOJI) == ["", "", REPLACEMENT]


@pytest.mark.parametrize("start", [HALF_EMOJI, list(TOKENIZER.encode("word"))], ids=["half a character", "a word"])
@pytest.mark.parametrize("token_id", [HALF_EMOJI[1], 0], ids=["continuation bytes", "special tokens"])
def test_an_endless_run_of_tokens_that_make_no_character_is_not_kept(start: list[int], token_id: int) -> None:
    longest = 0

    class CountingDecoder:
        def decode(self, token_ids: list[int]) -> str:
            nonlocal longest
            longest = max(longest, len(token_ids))
            return TOKENIZER.decode(token_ids)

    detokenizer = Detokenizer(CountingDecoder())
    pieces = [detokenizer.push(token) for token in [*start, *[token_id] * 1000]]
    assert "".join([*pieces, detokenizer.flush()]) == TOKENIZER.decode([*start, *[token_id] * 1000])
    assert longest < 10


def test_a_decoder_that_drops_the_first_space_keeps_the_one_between_prompt_and_output() -> None:
    vocabulary = {"<unk>": 0, "▁Hello": 1, "▁world": 2, "!": 3}
    backend = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.decoder = decoders.Metaspace()
    detokenizer = Detokenizer(backend, [1])
    assert [detokenizer.push(2), detokenizer.push(3), detokenizer.push(2)] == [" world", "!", " world"]
    assert Detokenizer(backend).push(2) == "world"
