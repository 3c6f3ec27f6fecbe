"""The name of a full block: a digest of its tokens and of all that stand before it.

Two blocks with the same hash hold the same KV, on any instance of the same model and block size (the hash chain of
automatic prefix caching in vLLM).
"""

import struct
from collections.abc import Sequence
from hashlib import blake2b

HASH_BYTES = 16


def hash_blocks(token_ids: Sequence[int], block_size: int, start_hashes: Sequence[bytes] = ()) -> list[bytes]:
    """One hash per full block of `token_ids`, which follow the blocks that `start_hashes` name."""
    layout = f"<{block_size}I"
    parent = start_hashes[-1] if start_hashes else b""
    hashes = []
    for end in range(block_size, len(token_ids) + 1, block_size):
        tokens = struct.pack(layout, *token_ids[end - block_size : end])
        parent = blake2b(parent + tokens, digest_size=HASH_BYTES).digest()
        hashes.append(parent)
    return hashes
