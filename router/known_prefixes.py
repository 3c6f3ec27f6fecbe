"""Which blocks an instance probably has, by their content hashes: what need not be computed there or sent there.

Nobody asks the instances. A request leaves its prompt's blocks where it was dispatched to, and where it decoded those
of its output too; an instance keeps the latest as far as its memory goes. Beliefs may be wrong either way: what is so
is settled when blocks are reserved; a wrong one costs some time and nothing else.

A block takes about 100 bytes here for each instance that has it: 64 instances with 20,000 blocks each, 128 MB.
"""

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Sequence

from cluster.messages import Holder


class KnownPrefixes:
    """A block is never believed without all that stand before it: their chain is touched from its end to its start."""

    def __init__(self) -> None:
        self._blocks: dict[Holder, OrderedDict[bytes, None]] = {}
        self._num_blocks: dict[Holder, int] = {}

    def join(self, holder: Holder, num_blocks: int) -> None:
        """Of an instance that has not joined, or keeps nothing (0 blocks), nothing is believed."""
        self._num_blocks[holder] = num_blocks
        self._blocks[holder] = OrderedDict()

    def leave(self, holder: Holder) -> None:
        self._blocks.pop(holder, None)
        self._num_blocks.pop(holder, None)

    def add(self, holder: Holder, block_hashes: Sequence[bytes]) -> None:
        """The instance has these blocks, of one chain from its first, or will at any moment."""
        blocks = self._blocks.get(holder)
        if blocks is None:
            return
        for block_hash in reversed(block_hashes):
            blocks[block_hash] = None
            blocks.move_to_end(block_hash)
        while len(blocks) > self._num_blocks[holder]:
            blocks.popitem(last=False)

    def num_blocks(self, holder: Holder, block_hashes: Sequence[bytes]) -> int:
        """How many of the chain, from the first on, are believed to be there."""
        blocks = self._blocks.get(holder)
        if not blocks or not block_hashes or block_hashes[0] not in blocks:
            return 0
        return bisect_left(block_hashes, True, key=lambda block_hash: block_hash not in blocks)

    def check_integrity(self) -> None:
        for holder, blocks in self._blocks.items():
            assert len(blocks) <= self._num_blocks[holder], f"{holder}: more than it has room for"
