"""One request of a workload: when it comes, and how long it is."""

from dataclasses import dataclass

from deploy.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkloadRequest:
    """`arrival_s` counts from the first request; None in a file of lengths only.

    `hash_ids`: one per block of `hash_block_tokens` prompt tokens; an equal id is an equal prefix up to its end.
    """

    arrival_s: float | None
    num_prompt_tokens: int
    num_output_tokens: int
    hash_ids: tuple[int, ...] = ()
    hash_block_tokens: int = 512


class WorkloadError(InputError):
    """Names the file, the line and what was expected there."""
