"""Token ids to text as they come: what is pushed out is final, and all of it together is the decoded whole.

Tokens do not end where characters end, and some decoders treat a first token differently (Metaspace drops its space).
So the text of new tokens is read off a window that begins with tokens already shown (the method of text-generation-
inference and vLLM), and a text that ends in U+FFFD, which may be half a character, waits for the next token.
"""

from collections.abc import Sequence
from typing import Protocol

REPLACEMENT = "\ufffd"
NUM_CONTEXT_TOKENS = 6  # more than the bytes of a character, so that its last clean border is inside


class Decoder(Protocol):
    def decode(self, token_ids: Sequence[int]) -> str: ...


class Detokenizer:
    """For one output. `decode(window)` begins with `shown`, which the first `num_shown` tokens of the window make."""

    def __init__(self, decoder: Decoder, prompt_token_ids: Sequence[int] = ()) -> None:
        """The end of the prompt decides how the output begins: with a space, or without."""
        self._decode = decoder.decode
        self._window = list(prompt_token_ids[-NUM_CONTEXT_TOKENS:])
        self._shown = self._decode(self._window)
        if self._shown.endswith(REPLACEMENT):  # the prompt ends inside a character: nothing of it is shown again
            self._window, self._shown = [], ""
        self._num_shown = len(self._window)
        self._text = self._shown

    def push(self, token_id: int) -> str:
        """The text that is certain now; empty while a character is incomplete."""
        self._window.append(token_id)
        text = self._decode(self._window)
        if text.endswith(REPLACEMENT):
            return self._hold(token_id, text)
        new = text[len(self._shown) :]
        if new:
            self._slide()
        else:  # a special token, or one beyond the tokenizer: it says nothing, and a run of them must not pile up
            self._window.pop()
        return new

    def flush(self) -> str:
        """What was held back, at the end of the output."""
        return self._text[len(self._shown) :]

    def _slide(self) -> None:
        del self._window[: self._num_shown]
        self._num_shown = len(self._window)
        self._shown = self._text = self._decode(self._window)

    def _hold(self, token_id: int, text: str) -> str:
        """Lets go of what came before the token if the token does not continue it: bytes that are no character."""
        tail = self._decode([token_id])
        if not tail:
            self._window.pop()
            return ""
        before, self._text = self._text, text
        if before + tail != text:
            return ""
        settled = before[len(self._shown) :]
        self._window, self._num_shown, self._shown, self._text = [token_id], 0, "", tail
        return settled
