"""How a transfer is cut into NCCL messages: both ends have to post the same sizes in the same order."""

from collections.abc import Iterator, Sequence

STAGING_BYTES = 8 << 20  # of each of the two halves
STRAIGHT_BYTES = 1 << 20  # a run of at least this, in one piece at both ends, needs no staging at either


def staging_blocks(record_bytes: int) -> int:
    """Blocks that one half of the staging memory holds; a single block never needs it."""
    return max(1, STAGING_BYTES // record_bytes)


def plan_messages(
    source_ids: Sequence[int], target_ids: Sequence[int], record_bytes: int, *, whole: bool = True
) -> list[int]:
    """The number of blocks of each message, in order. Not `whole`: so many bytes of each record, which all are staged.

    A long run that is contiguous at both ends is a message of its own. What is between such runs is gathered into
    messages that fit into staging; an end at which all of a message's blocks lie in one piece does not stage it.
    """
    most, straight = staging_blocks(record_bytes), max(1, -(-STRAIGHT_BYTES // record_bytes))
    messages, gathered = [], 0
    for run in _joint_runs(source_ids, target_ids):
        if whole and run >= straight:
            messages += [gathered] * (gathered > 0) + [run]
            gathered = 0
            continue
        while run:
            take = min(run, most - gathered)
            gathered, run = gathered + take, run - take
            if gathered == most:
                messages.append(gathered)
                gathered = 0
    return messages + [gathered] * (gathered > 0)


def is_contiguous(block_ids: Sequence[int]) -> bool:
    return all(block_id == block_ids[0] + index for index, block_id in enumerate(block_ids))


def spans(messages: Sequence[int]) -> Iterator[slice]:
    start = 0
    for count in messages:
        yield slice(start, start + count)
        start += count


def _joint_runs(source_ids: Sequence[int], target_ids: Sequence[int]) -> Iterator[int]:
    run = 0
    previous = (-1, -1)
    for pair in zip(source_ids, target_ids, strict=True):
        if run and pair != (previous[0] + 1, previous[1] + 1):
            yield run
            run = 0
        run, previous = run + 1, pair
    if run:
        yield run
