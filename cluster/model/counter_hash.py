"""Random numbers that depend on (seed, position, token) alone: a draw is the same wherever and whenever it is made.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) is a counter-based hash:
its n-th output is a bijective mix of `seed + n * GOLDEN_GAMMA`. The seed is mixed first: near seeds share no stream.
"""

import torch
from torch import Tensor

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64's finaliser (variant 13 of MurmurHash3's) on 64 bits."""
    value = ((value ^ (value >> 30)) * FACTORS[0]) & MASK
    value = ((value ^ (value >> 27)) * FACTORS[1]) & MASK
    return value ^ (value >> 31)


def key(seed: int, position: int) -> int:
    """64 bits, as torch's int64 holds them; any integer is a seed (its low 64 bits count)."""
    return _signed(mix((mix(seed & MASK) + (position + 1) * GOLDEN_GAMMA) & MASK))


def exponentials(keys: Tensor, token_ids: Tensor) -> Tensor:
    """Exp(1) numbers, above 0, for tokens [num_rows, num_tokens] of rows with these int64 keys [num_rows]; doubles."""
    bits = mix_tensor(keys[:, None] + (token_ids + 1) * _signed(GOLDEN_GAMMA))
    return -((_shifted(bits, 11).double() + 0.5) * 2.0**-53).log()


def mix_tensor(values: Tensor) -> Tensor:
    """`mix` of int64s, whose products wrap."""
    values = (values ^ _shifted(values, 30)) * _signed(FACTORS[0])
    values = (values ^ _shifted(values, 27)) * _signed(FACTORS[1])
    return values ^ _shifted(values, 31)


def _shifted(values: Tensor, num_bits: int) -> Tensor:
    """To the right, with zeros coming in: torch's own shift repeats the sign."""
    return torch.bitwise_right_shift(values, num_bits) & ((1 << (64 - num_bits)) - 1)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value
