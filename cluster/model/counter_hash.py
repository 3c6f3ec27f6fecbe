"""A random number that depends on (seed, position) alone: a draw is the same wherever and whenever it is made.

SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014) is a counter-based hash:
its n-th output is a bijective mix of `seed + n * GOLDEN_GAMMA`. The seed is mixed first: near seeds share no stream.
"""

GOLDEN_GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def mix(value: int) -> int:
    """SplitMix64's finaliser (variant 13 of MurmurHash3's) on 64 bits."""
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
    return value ^ (value >> 31)


def uniform(seed: int, position: int) -> float:
    """In [0, 1), a multiple of 2**-32; any integer is a seed (its low 64 bits count)."""
    return (mix((mix(seed & MASK) + (position + 1) * GOLDEN_GAMMA) & MASK) >> 32) * 2.0**-32
