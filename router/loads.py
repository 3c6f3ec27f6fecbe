"""The router's picture as rescheduling policies see it: who holds what, and what of it may be moved."""

from collections.abc import Mapping
from dataclasses import dataclass

from cluster.messages import Holder
from router.ledger import Entry, Ledger
from router.policies import InstanceLoad, RequestLoad
from router.scheduler import Member, Scheduler


@dataclass(frozen=True, slots=True)
class LastMove:
    """When a request was last given the leave to move, and from where."""

    round: int
    source: Holder


def instance_loads(
    ledger: Ledger, scheduler: Scheduler, last_moves: Mapping[str, LastMove], this_round: int
) -> list[InstanceLoad]:
    moving = _count_moving(ledger)
    return [
        InstanceLoad(
            holder=member.place.holder,
            role=member.role,
            kv_layout=member.kv_layout,
            num_blocks=member.num_blocks,
            block_size=member.block_size,
            max_num_seqs=member.max_num_seqs,
            requests=tuple(_request_loads(member, ledger, last_moves, this_round)),
            num_moving=moving.get(member.place.holder, 0),
            is_draining=scheduler.is_draining(member),
        )
        for member in scheduler.members
    ]


def _count_moving(ledger: Ledger) -> dict[Holder, int]:
    """Handovers that leave or come, but for those of prefilled requests: nobody waits for the others."""
    counts: dict[Holder, int] = {}
    for entry in ledger:
        if entry.grant is not None and entry.owner is not None and entry.grant_reason != "prefill":
            for holder in (entry.owner, entry.grant.receiver):
                counts[holder] = counts.get(holder, 0) + 1
    return counts


def _request_loads(
    member: Member, ledger: Ledger, last_moves: Mapping[str, LastMove], this_round: int
) -> list[RequestLoad]:
    """The instance says how many wait there: the last of those without a token yet."""
    here = [entry for request_id in member.num_tokens if (entry := ledger.get(request_id))]
    without_token = [entry.request_id for entry in here if entry.num_output_tokens == 0]
    num_waiting = member.snapshot.num_waiting if member.snapshot else 0
    queued = set(without_token[-num_waiting:]) if num_waiting else set()
    return [
        RequestLoad(
            request_id=entry.request_id,
            num_tokens=member.num_tokens[entry.request_id],
            priority=entry.state.priority,
            is_queued=entry.request_id in queued,
            can_move=_can_move(entry, member.place.holder),
            came_from=move.source if (move := last_moves.get(entry.request_id)) else None,
            num_rounds_since_move=this_round - move.round if move else None,
        )
        for entry in here
    ]


def _can_move(entry: Entry, holder: Holder) -> bool:
    return entry.owner == holder and entry.grant is None
