"""Which block of KV memory belongs to whom.

A block is free, referenced by one or more sequences, or cached: full, named by its hash, and referenced by nobody, so
that it can be found again or, least recently used first, evicted. A full and computed block is *sealed*: it is never
written again, and therefore shared by reference count alone. Only what a sequence still fills is its own.
A pin is a reference by whoever still reads or writes a block, beside the sequences (law 9).
"""

from collections import Counter, OrderedDict
from collections.abc import Iterable
from collections.abc import Sequence as List

from cluster.engine.block_hash import hash_blocks
from cluster.engine.sequence import Sequence

_NAMELESS = b""
"""In the place of a sealed block's name where no prefixes are kept."""


class BlockManager:
    def __init__(self, num_blocks: int, block_size: int, *, enable_prefix_caching: bool = True) -> None:
        if num_blocks < 1 or block_size < 1:
            raise ValueError(f"num_blocks {num_blocks} and block_size {block_size} must be at least 1")
        self.num_blocks = num_blocks
        self.block_size = block_size
        self.enable_prefix_caching = enable_prefix_caching
        self._free = list(range(num_blocks - 1, -1, -1))
        self._ref_counts = [0] * num_blocks
        self._num_references = 0
        self._pins: dict[int, int] = {}
        self._hash_of: list[bytes | None] = [None] * num_blocks
        self._block_of: dict[bytes, int] = {}
        self._evictable: OrderedDict[int, None] = OrderedDict()  # least recently used first

    @property
    def num_free_blocks(self) -> int:
        """Cached blocks that nobody references count as free."""
        return len(self._free) + len(self._evictable)

    @property
    def num_tokens(self) -> int:
        """The capacity."""
        return self.num_blocks * self.block_size

    def num_blocks_for(self, num_tokens: int) -> int:
        return -(-num_tokens // self.block_size)

    def find_cached(self, hashes: Iterable[bytes]) -> list[int]:
        """The blocks of the leading hashes that are known here, up to the first that is not."""
        block_ids = []
        for block_hash in hashes:
            block_id = self._block_of.get(block_hash)
            if block_id is None:
                break
            block_ids.append(block_id)
        return block_ids

    def admit(self, sequence: Sequence, num_tokens: int, *, max_cached_tokens: int, num_spare_blocks: int = 0) -> bool:
        """Gives a sequence without blocks room for `num_tokens`, the first of them with KV where it is cached.

        Sets `num_computed_tokens` to what was found, at most `max_cached_tokens`. False, and nothing changed: that
        would leave fewer than `num_spare_blocks` free.
        """
        num_cacheable = max_cached_tokens // self.block_size if self.enable_prefix_caching else 0
        hashes = self.hashes(sequence, num_cacheable)
        cached = self.find_cached(hashes)
        num_taken = self.num_blocks_for(num_tokens) - sum(self._ref_counts[block_id] > 0 for block_id in cached)
        if self.num_free_blocks - num_taken < num_spare_blocks:
            return False
        self._num_references += len(cached)
        for block_id in cached:
            self._ref_counts[block_id] += 1
            self._evictable.pop(block_id, None)
        sequence.block_table = cached
        sequence.block_hashes = hashes[: len(cached)]
        sequence.num_computed_tokens = len(cached) * self.block_size
        return self.allocate(sequence, num_tokens)

    def allocate(self, sequence: Sequence, num_tokens: int) -> bool:
        """Grows the block table to hold `num_tokens`. False, and nothing changed: not enough blocks now."""
        num_new = self.num_blocks_for(num_tokens) - len(sequence.block_table)
        if num_new <= 0:
            return True
        if num_new > self.num_free_blocks:
            return False
        sequence.block_table += self._take(num_new)
        return True

    def seal(self, sequence: Sequence) -> range:
        """Names the blocks that have become full and computed, so that others find them; returns their indexes.

        Where another sequence has computed the same block before, that one keeps the name and this one stays private.
        """
        first, end = len(sequence.block_hashes), sequence.num_computed_tokens // self.block_size
        if first >= end:
            return range(end, end)
        if not self.enable_prefix_caching:
            sequence.block_hashes += [_NAMELESS] * (end - first)
            return range(first, end)
        sequence.block_hashes += self.hashes(sequence, end)[first:]
        for index in range(first, end):
            block_id, block_hash = sequence.block_table[index], sequence.block_hashes[index]
            if self._block_of.setdefault(block_hash, block_id) == block_id:
                self._hash_of[block_id] = block_hash
        return range(first, end)

    def free(self, sequence: Sequence) -> None:
        """Takes all blocks back. Those with a name can be found until they are evicted, the end of the chain first."""
        self._release(reversed(sequence.block_table))
        sequence.block_table = []
        sequence.block_hashes = []
        sequence.num_computed_tokens = 0

    def pin(self, block_ids: Iterable[int]) -> None:
        """These stay as they are, even when their sequence frees them, until as many `unpin` calls name them."""
        for block_id in block_ids:
            assert self._ref_counts[block_id] > 0, f"block {block_id} is pinned while nobody holds it"
            self._ref_counts[block_id] += 1
            self._num_references += 1
            self._pins[block_id] = self._pins.get(block_id, 0) + 1

    def unpin(self, block_ids: List[int]) -> None:
        pins = self._pins
        for block_id in block_ids:
            num_others = pins.pop(block_id, 0) - 1
            assert num_others >= 0, f"block {block_id} is not pinned"
            if num_others:
                pins[block_id] = num_others
        self._release(block_ids)

    def num_leaked_blocks(self, sequences: Iterable[Sequence]) -> int:
        """Blocks that are referenced, but neither stand in a table nor are pinned; each as often as it is."""
        return (
            self._num_references - sum(self._pins.values()) - sum(len(sequence.block_table) for sequence in sequences)
        )

    def check_integrity(self, sequences: Iterable[Sequence]) -> None:
        """Asserts that every block is in one state, and that `sequences`, all that hold blocks, agree."""
        sequences = list(sequences)
        tables = Counter(block_id for sequence in sequences for block_id in sequence.block_table)
        held = tables + Counter(self._pins)
        assert [held[block_id] for block_id in range(self.num_blocks)] == self._ref_counts, (
            "a block leaked or is doubled"
        )
        assert self._num_references == sum(self._ref_counts), "references are counted wrong"
        unreferenced = {block_id for block_id in range(self.num_blocks) if not held[block_id]}
        assert sorted([*self._free, *self._evictable]) == sorted(unreferenced), "free + cached + held is not the total"
        named = {block_id: block_hash for block_id, block_hash in enumerate(self._hash_of) if block_hash is not None}
        assert {block_id: name for name, block_id in self._block_of.items()} == named, "a hash and a block disagree"
        assert named.keys() & unreferenced == self._evictable.keys(), (
            "a block is cached without a hash, or free with one"
        )
        for sequence in sequences:
            self._check_table(sequence, tables)

    def _check_table(self, sequence: Sequence, tables: Counter[int]) -> None:
        num_sealed, num_computed = len(sequence.block_hashes), sequence.num_computed_tokens
        request_id, table = sequence.request_id, sequence.block_table
        assert len(set(table)) == len(table), f"{request_id} has a block twice"
        assert num_sealed * self.block_size <= num_computed, f"{request_id} sealed what is not computed"
        assert num_computed <= len(table) * self.block_size, f"{request_id} lacks blocks"
        for block_id in table[num_sealed:]:
            assert tables[block_id] == 1, f"{request_id} shares block {block_id}, which is still written"
            assert self._hash_of[block_id] is None, f"{request_id} still writes block {block_id}, which is cached"

    def _take(self, count: int) -> list[int]:
        """Free ones, and then those that were used least recently; so many there are."""
        num_free = min(count, len(self._free))
        block_ids = self._free[len(self._free) - num_free :][::-1]
        del self._free[len(self._free) - num_free :]
        block_ids += [self._evict() for _ in range(count - num_free)]
        ref_counts = self._ref_counts
        for block_id in block_ids:
            ref_counts[block_id] = 1
        self._num_references += count
        return block_ids

    def _evict(self) -> int:
        block_id, _ = self._evictable.popitem(last=False)
        block_hash, self._hash_of[block_id] = self._hash_of[block_id], None
        assert block_hash is not None
        del self._block_of[block_hash]
        return block_id

    def _release(self, block_ids: Iterable[int]) -> None:
        ref_counts, hash_of, free = self._ref_counts, self._hash_of, self._free
        for block_id in block_ids:
            self._num_references -= 1
            ref_counts[block_id] -= 1
            if ref_counts[block_id]:
                continue
            if hash_of[block_id] is None:
                free.append(block_id)
            else:
                self._evictable[block_id] = None

    def hashes(self, sequence: Sequence, num_blocks: int) -> list[bytes]:
        """Of the first `num_blocks` blocks; tokens are only ever appended, so the chain is computed once.

        None where no prefixes are kept: nobody would look for them.
        """
        if not self.enable_prefix_caching:
            return []
        known = sequence.known_hashes
        if len(known) < num_blocks:
            start, end = len(known) * self.block_size, num_blocks * self.block_size
            known += hash_blocks(sequence.token_ids(start, end), self.block_size, known)
        return known[:num_blocks]
