"""How a GPU computes; on a CPU none of it means anything."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuOptions:
    """`max_num_seqs` decode in one recorded graph at most. `batch_invariant`: the same bits whatever the batch.

    `max_model_len`: tokens of a sequence at most; 0: as many as the model takes.
    """

    max_num_seqs: int = 64
    max_model_len: int = 0
    graphs: bool = True
    batch_invariant: bool = False
