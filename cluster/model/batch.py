"""The order in which the sequences of a step are laid out for the model."""

from collections.abc import Sequence as List
from dataclasses import dataclass

import torch
from torch import Tensor

from cluster.engine.scheduler_output import ScheduledSequence
from cluster.model.attention import Span


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Single tokens first, the longest contexts before the shorter ones; then the chunks of prefill.

    `last_rows` are the rows of the entries that sample, in the order in which they were scheduled.
    """

    spans: tuple[Span, ...]
    token_ids: Tensor  # [num_tokens]
    positions: Tensor  # [num_tokens]
    last_rows: Tensor  # [num_samples]


def make_batch(scheduled: List[ScheduledSequence]) -> Batch:
    order = layout_order(scheduled)
    token_ids: list[int] = []
    positions: list[int] = []
    last_row = [0] * len(scheduled)
    for i in order:
        entry = scheduled[i]
        token_ids += entry.sequence.token_ids(entry.start, entry.start + entry.num_tokens)
        positions += range(entry.start, entry.start + entry.num_tokens)
        last_row[i] = len(token_ids) - 1
    return Batch(
        spans=tuple(_span(scheduled[i]) for i in order),
        token_ids=torch.tensor(token_ids),
        positions=torch.tensor(positions),
        last_rows=torch.tensor([last_row[i] for i, entry in enumerate(scheduled) if entry.samples], dtype=torch.long),
    )


def layout_order(scheduled: List[ScheduledSequence]) -> list[int]:
    """Which entry each of the batch's spans is."""
    return sorted(range(len(scheduled)), key=lambda i: _layout_key(scheduled[i]))


def _layout_key(entry: ScheduledSequence) -> tuple[bool, int]:
    return entry.num_tokens > 1, -entry.start


def _span(entry: ScheduledSequence) -> Span:
    return Span(block_table=entry.sequence.block_table, start=entry.start, num_tokens=entry.num_tokens)
