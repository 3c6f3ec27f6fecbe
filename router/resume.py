"""Where a client goes on whose stream broke: how many tokens it has, and proof that they are the beginning of these.

The proof is BLAKE2b over the token ids, each as four little-endian bytes, with a digest of eight bytes.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from struct import pack
from typing import Self
from urllib.parse import quote, unquote

NUM_HASH_BYTES = 8
_MAX_INDEX = 2**31


class TokensHash:
    """Of an output as it grows; `num_tokens` are in it."""

    def __init__(self, token_ids: Iterable[int] = ()) -> None:
        self._hash = hashlib.blake2b(digest_size=NUM_HASH_BYTES)
        self.num_tokens = 0
        self.update(tuple(token_ids))

    def update(self, token_ids: Sequence[int]) -> None:
        self._hash.update(pack(f"<{len(token_ids)}I", *token_ids))
        self.num_tokens += len(token_ids)

    def digest(self) -> bytes:
        return self._hash.digest()


@dataclass(frozen=True, slots=True)
class ResumePoint:
    """`next_index`: of the first output token that the client does not have; `tokens_hash`: of those that it has."""

    request_id: str
    next_index: int
    tokens_hash: bytes

    @classmethod
    def after(cls, request_id: str, token_ids: Sequence[int]) -> Self:
        return cls(request_id, len(token_ids), TokensHash(token_ids).digest())

    def is_after(self, token_ids: Sequence[int]) -> bool:
        """Whether these are the tokens that the client has."""
        return len(token_ids) == self.next_index and TokensHash(token_ids).digest() == self.tokens_hash

    @classmethod
    def from_event_id(cls, event_id: str) -> Self:
        """Raises ValueError for what is no id of `EventIds`."""
        request_id, index, digest = event_id.split(":")
        if not (request_id and index.isascii() and index.isdecimal() and int(index) < _MAX_INDEX):
            raise ValueError(event_id)
        tokens_hash = bytes.fromhex(digest)
        if len(tokens_hash) != NUM_HASH_BYTES:
            raise ValueError(event_id)
        return cls(unquote(request_id, errors="strict"), int(index), tokens_hash)


class EventIds:
    """`REQUEST:NEXT_INDEX:HASH` after each event of a stream, in characters that its lines and a header can carry."""

    def __init__(self, request_id: str, known_token_ids: Iterable[int] = ()) -> None:
        self._request = quote(request_id, safe="")
        self._hash = TokensHash(known_token_ids)

    def after(self, token_ids: Sequence[int]) -> str:
        """Of the event that brings these, the next tokens."""
        self._hash.update(token_ids)
        return f"{self._request}:{self._hash.num_tokens}:{self._hash.digest().hex()}"
