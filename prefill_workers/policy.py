"""What the prefill pool does differently."""


class PrefillPolicy:
    """Batches to saturation: a longer batch makes everybody in it wait and nobody faster."""

    def token_budget(self, saturation_tokens: int, max_num_seqs: int) -> int:
        return saturation_tokens

    def watermark_blocks(self, num_blocks: int) -> int:
        """None: what passes through here never grows for long."""
        return 0
