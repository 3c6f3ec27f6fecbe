"""What the decode pool does differently, and what an instance does that has both roles."""

import math

# Every admitted sequence keeps growing: without slack the next step would preempt what was just let in.
_WATERMARK = 0.02


class DecodePolicy:
    """Decodes first: prompts (after a preemption, say) get what a step of decodes hardly notices."""

    def token_budget(self, saturation_tokens: int, max_num_seqs: int) -> int:
        return max_num_seqs + saturation_tokens // 4

    def watermark_blocks(self, num_blocks: int) -> int:
        return math.ceil(_WATERMARK * num_blocks)


class MixedPolicy(DecodePolicy):
    """Colocated chunked prefill: chunks to saturation beside the decodes (Sarathi-Serve)."""

    def token_budget(self, saturation_tokens: int, max_num_seqs: int) -> int:
        return max_num_seqs + saturation_tokens
