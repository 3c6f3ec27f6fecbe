"""What kernels on a device need to know of a step: one array of int32 on the host, one copy, views of it there."""

from collections.abc import Sequence as List
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cluster.model.attention import Span, count_decodes

Int32s = NDArray[np.int32]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTensors:
    """Sequences in the order of the spans, the `num_decodes` of one token first.

    `contexts` count the tokens that have KV when the step's are stored; `chunk_starts` are where in the step each
    sequence's tokens begin, with the step's end last; `slots` are block * block_size + slot of each new token.
    """

    tables: Tensor  # [num_sequences, max_blocks], int32
    contexts: Tensor  # [num_sequences], int32
    chunk_starts: Tensor  # [num_sequences + 1], int32
    slots: Tensor  # [num_tokens], int32
    num_decodes: int
    max_chunk: int
    max_context: int

    @property
    def num_sequences(self) -> int:
        return self.contexts.shape[0]


def make_step_tensors(spans: List[Span], block_size: int, device: torch.device) -> StepTensors:
    """Spans of one token must come first."""
    tables, contexts = make_block_tables(spans, block_size)
    slots: list[Int32s] = []
    for row, span in zip(tables, spans, strict=True):
        positions = np.arange(span.start, span.end, dtype=np.int32)
        slots.append(row[positions // block_size] * block_size + positions % block_size)
    chunks = [span.num_tokens for span in spans]
    chunk_starts = np.cumsum([0, *chunks], dtype=np.int32)
    on_device = upload([tables, contexts, chunk_starts, np.concatenate(slots)], device)
    return StepTensors(
        tables=on_device[0].view(tables.shape),
        contexts=on_device[1],
        chunk_starts=on_device[2],
        slots=on_device[3],
        num_decodes=count_decodes(spans),
        max_chunk=max(chunks),
        max_context=int(contexts.max()),
    )


def make_block_tables(spans: List[Span], block_size: int) -> tuple[Int32s, Int32s]:
    """Tables [num_spans, blocks of the longest] and contexts [num_spans], as `StepTensors` has them; none for none."""
    contexts = [span.end for span in spans]
    num_blocks = [-(-end // block_size) for end in contexts]
    width = max(num_blocks, default=0)
    tables: list[int] = []
    for span, count in zip(spans, num_blocks, strict=True):
        tables += span.block_table[:count]
        tables += [0] * (width - count)
    return np.fromiter(tables, np.int32, len(tables)).reshape(len(spans), width), np.array(contexts, np.int32)


def upload(arrays: List[Int32s], device: torch.device) -> list[Tensor]:
    """Flat tensors of int32 on the device, in one copy that nobody waits for."""
    packed = torch.from_numpy(np.concatenate([array.ravel() for array in arrays]))
    if device.type == "cuda":
        packed = packed.pin_memory()
    return list(torch.split(packed.to(device, non_blocking=True), [array.size for array in arrays]))
