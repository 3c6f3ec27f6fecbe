"""What an instance of the calculation can do: step times and memory by formula."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Step times as DistServe fitted them for OPT-13B on one A100 (OSDI'24); KV as with grouped queries.

    `kv_bytes_per_token`: of 40 layers with 8 KV heads of 128 in 16 bits. `chunk_tokens`: of a prompt, in one step.
    """

    prefill_fixed_s: float = 18.1e-3
    prefill_per_token_s: float = 0.102e-3
    prefill_per_token_squared_s: float = 7.1e-9
    decode_fixed_s: float = 19.9e-3
    decode_per_context_token_s: float = 0.63e-6
    decode_per_sequence_s: float = 38.5e-6
    kv_bytes_per_token: int = 2 * 40 * 8 * 128 * 2
    chunk_tokens: int = 2048
    block_size: int = 16
    num_blocks: int = 12_500
    max_num_seqs: int = 256

    def prefill_s(self, num_tokens: int, num_cached_tokens: int = 0) -> float:
        """Of a prompt of `num_tokens`, of which the first ones need not be computed."""
        fresh = num_tokens - num_cached_tokens
        squares = num_tokens**2 - num_cached_tokens**2
        return self.prefill_fixed_s + self.prefill_per_token_s * fresh + self.prefill_per_token_squared_s * squares

    def decode_step_s(self, num_sequences: int, num_context_tokens: int) -> float:
        return (
            self.decode_fixed_s
            + self.decode_per_context_token_s * num_context_tokens
            + self.decode_per_sequence_s * num_sequences
        )

    def describe(self) -> str:
        return (
            f"prefill {self.prefill_fixed_s * 1e3:g} + {self.prefill_per_token_s * 1e3:g} n + "
            f"{self.prefill_per_token_squared_s * 1e3:g} n² ms, decode step {self.decode_fixed_s * 1e3:g} + "
            f"{self.decode_per_context_token_s * 1e3:g} context + {self.decode_per_sequence_s * 1e3:g} batch ms, "
            f"KV {self.kv_bytes_per_token:,} bytes a token, room for {self.num_blocks * self.block_size:,} tokens"
        )
