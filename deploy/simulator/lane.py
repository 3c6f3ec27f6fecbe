"""A sequence that decodes in a simulation, of which it is known how it will go on."""

from cluster.engine.block_manager import BlockManager
from cluster.engine.sequence import Sequence
from deploy.simulator.client import Client


class Lane:
    """`num_left`: steps until it ends. `num_ahead`: of which the sequence does not have the tokens yet.

    `context`: that its next step reads. `room`, `seal_at`: up to so many tokens, its blocks are as they are.
    """

    __slots__ = ("client", "context", "num_ahead", "num_left", "own_tokens", "room", "seal_at", "sequence")

    def __init__(self, sequence: Sequence, client: Client, num_left: int, block_size: int) -> None:
        self.sequence, self.client, self.num_left = sequence, client, num_left
        self.num_ahead = 0
        self.context = sequence.num_computed_tokens + 1
        self.own_tokens = [sequence.sampling_params.seed]
        self.room = len(sequence.block_table) * block_size
        self.seal_at = (len(sequence.block_hashes) + 1) * block_size

    def catch_up(self, blocks: BlockManager, *, is_in_step: bool) -> None:
        """`is_in_step`: one more has begun, and has its blocks."""
        sequence, count = self.sequence, self.num_ahead
        num_computed = sequence.num_computed_tokens + count
        if count:
            sequence.output_token_ids += self.own_tokens * count
            sequence.num_computed_tokens = num_computed
            self.num_ahead = 0
        self.fit(blocks, num_computed, is_in_step=is_in_step)

    def fit(self, blocks: BlockManager, num_computed: int, *, is_in_step: bool) -> None:
        """Blocks for so many tokens, and names for the full ones."""
        sequence = self.sequence
        if num_computed + is_in_step > self.room:
            assert blocks.allocate(sequence, num_computed + is_in_step), "there was room for all steps"
            self.room = len(sequence.block_table) * blocks.block_size
        if num_computed >= self.seal_at:
            blocks.seal(sequence)
            self.seal_at = (len(sequence.block_hashes) + 1) * blocks.block_size
