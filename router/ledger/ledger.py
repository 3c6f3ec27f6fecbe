"""Who holds each request, and which tokens of it the client has: the only place that decides either.

One entry per request, from its admission to its last token. The ledger alone mints epochs; it accepts tokens from the
owner it has on record or from the holder of the one open grant, which then becomes the owner (laws 1 to 5). Methods
are events; each returns what is to be done, and forgets an entry in the same moment as it ends.

    QUEUED --dispatch--> owner --grant's holder speaks--> new owner --last token--> forgotten
      ^                    |            \\-- refused, lost: the grant is closed, the owner stays
      +---- owner lost ----+-- aborted, out of time: forgotten, and everybody who held it is told to stop

A request whose owner is lost is dispatched again with the tokens that are here, at an epoch above all that were given.
"""

import sys
from collections.abc import Iterator, Mapping
from dataclasses import replace

from cluster.engine.sequence import FINISH_REASONS, FinishReason
from cluster.engine.stop_conditions import stop_status
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    Grant,
    GrantRefused,
    HandOver,
    Held,
    Holder,
    PassedOn,
    SequenceState,
    Stop,
    TokenUpdate,
    WantTokens,
)
from router.ledger.entry import CannotMove, DuplicateEntry, Entry
from router.ledger.instructions import (
    Adopt,
    Deliver,
    Fail,
    Failure,
    Instruction,
    Note,
    Place,
    Requeue,
    Step,
    Tell,
)

# One that took so many instances with it is not given to another.
MAX_RECOVERIES = 3


class Ledger:
    def __init__(self, term: int) -> None:
        self.term = term
        self._num_epochs = 0
        self._entries: dict[str, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._entries

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def get(self, request_id: str) -> Entry | None:
        return self._entries.get(request_id)

    def sole_holder(self, request_id: str) -> Holder | None:
        """The owner, when there is one and nobody has a grant."""
        entry = self._entries.get(request_id)
        return entry.owner if entry and entry.grant is None else None

    def _mint(self) -> Epoch:
        self._num_epochs += 1
        return Epoch(self.term, self._num_epochs)

    def admit(self, state: SequenceState) -> None:
        if state.request_id in self._entries:
            raise DuplicateEntry(state.request_id)
        self._entries[state.request_id] = Entry(state=state)

    # Giving

    def dispatch(self, request_id: str, prefill: Place, decode: Place | None, number: int) -> list[Instruction]:
        """To `prefill`, with a grant for `decode`; None keeps the request where it is prefilled."""
        entry = self._entries[request_id]
        assert entry.owner is None, f"{request_id} was dispatched before"
        entry.owner, entry.epoch = prefill.holder, self._mint()
        entry.holders[prefill.holder] = entry.epoch
        notes = [entry.note(Step.DISPATCHED)]
        if decode is not None:
            notes.append(self._open_grant(entry, decode, "prefill")[1])
        dispatch = Dispatch(state=entry.current_state(), epoch=entry.epoch, grant=entry.grant, number=number)
        return [Tell(prefill.holder, dispatch), *notes]

    def hand_over(self, request_id: str, to: Place, reason: str) -> list[Instruction]:
        """Lets the owner pass a running request on. Raises CannotMove."""
        entry = self._entries.get(request_id)
        if entry is None:
            raise CannotMove(f"{request_id} is unknown or over")
        if entry.owner is None or entry.epoch is None:
            raise CannotMove(f"{request_id} waits to be dispatched: no instance has it yet")
        if entry.grant is not None:
            raise CannotMove(f"{request_id} is being handed over to {entry.grant.receiver.instance} already")
        if entry.owner == to.holder:
            raise CannotMove(f"{request_id} is in {to.holder.instance} already")
        grant, note = self._open_grant(entry, to, reason)
        return [Tell(entry.owner, HandOver(request_id=request_id, epoch=entry.epoch, grant=grant)), note]

    def _open_grant(self, entry: Entry, to: Place, reason: str) -> tuple[Grant, Note]:
        epoch = self._mint()
        entry.holders[to.holder] = epoch
        grant = Grant(epoch=epoch, receiver=to.holder, address=to.address, link_address=to.link_address)
        entry.grant, entry.grant_reason = grant, reason
        return grant, entry.note(Step.GRANTED, peer=to.holder, reason=reason)

    # What instances say

    def _hears(self, entry: Entry | None, holder: Holder, epoch: Epoch) -> tuple[bool, list[Instruction]]:
        """Whether this is the owner. The open grant's holder becomes it by speaking: its word commits the grant."""
        if entry is None:
            return False, []
        if not entry.is_granted_to(holder, epoch):
            return entry.is_owned_by(holder, epoch), []
        source, entry.owner, entry.epoch, entry.grant = entry.owner, holder, epoch, None
        return True, [entry.note(Step.PASSED, peer=source, reason=entry.grant_reason)]

    def on_tokens(self, holder: Holder, update: TokenUpdate) -> list[Instruction]:
        entry = self._entries.get(update.request_id)
        is_heard, notes = self._hears(entry, holder, update.epoch)
        if entry is None or not is_heard:
            return [Tell(holder, Stop(request_id=update.request_id, epoch=update.epoch))]
        start = entry.num_output_tokens
        if update.start_index > start:
            want = WantTokens(request_id=update.request_id, epoch=update.epoch, next_index=start)
            return [Tell(holder, want), *notes]
        deliver = self._take(entry, update)
        if update.finish_reason is not None:
            return [*notes, deliver, *self._finished(entry, holder, update)]
        return [*notes, deliver] if deliver.token_ids else notes

    def _take(self, entry: Entry, update: TokenUpdate) -> Deliver:
        start = entry.num_output_tokens
        num_known = start - update.start_index
        entry.output_token_ids += update.token_ids[num_known:]
        entry.logprobs += update.logprobs[num_known:]
        entry.num_cached_tokens = update.num_cached_tokens
        return Deliver(
            request_id=update.request_id,
            start_index=start,
            token_ids=update.token_ids[num_known:],
            logprobs=update.logprobs[num_known:],
            finish_reason=update.finish_reason,
            num_cached_tokens=update.num_cached_tokens,
        )

    def _finished(self, entry: Entry, holder: Holder, update: TokenUpdate) -> list[Instruction]:
        del entry.holders[holder]
        assert update.finish_reason is not None
        ack = Tell(holder, AckFinished(request_id=entry.request_id, epoch=update.epoch))
        return [ack, entry.note(Step.FINISHED, reason=update.finish_reason.value), *self._forget(entry)]

    def on_activated(self, holder: Holder, message: Activated) -> list[Instruction]:
        is_heard, notes = self._hears(self._entries.get(message.request_id), holder, message.epoch)
        if not is_heard:
            return [Tell(holder, Stop(request_id=message.request_id, epoch=message.epoch))]
        return [Tell(holder, AckActivated(request_id=message.request_id, epoch=message.epoch)), *notes]

    def on_grant_refused(self, message: GrantRefused) -> list[Instruction]:
        """From either side: the source runs on, or the receiver destroyed a reservation that had its baton."""
        entry = self._entries.get(message.request_id)
        if entry is None or entry.grant is None or entry.grant.epoch != message.epoch:
            return []
        return self._close_grant(entry, message.reason, message.unreachable)

    def _close_grant(self, entry: Entry, reason: str, unreachable: bool = False) -> list[Instruction]:
        """A write here is what fences the receiver off; the messages only tidy up."""
        assert entry.grant is not None
        assert entry.owner is not None
        receiver, epoch = entry.grant.receiver, entry.grant.epoch
        entry.grant = None
        del entry.holders[receiver]
        return [
            Tell(entry.owner, CloseGrant(request_id=entry.request_id, epoch=epoch)),
            Tell(receiver, Stop(request_id=entry.request_id, epoch=epoch)),
            entry.note(Step.KEPT, peer=receiver, reason=reason, unreachable=unreachable),
        ]

    def on_passed_on(self, holder: Holder, message: PassedOn) -> list[Instruction]:
        """The owner on record let go before it heard that the grant was closed: nobody who counts has it now."""
        entry = self._entries.get(message.request_id)
        if entry is None or entry.owner != holder or entry.grant is not None:
            return []
        if entry.epoch is None or entry.epoch >= message.epoch:
            return []  # of an earlier request with this id
        return self._recover(entry, f"{holder.instance} had just passed it to an instance that was lost")

    def on_dispatch_refused(self, holder: Holder, message: DispatchRefused) -> list[Instruction]:
        entry = self._entries.get(message.request_id)
        if entry is None or not entry.is_owned_by(holder, message.epoch):
            return []
        if message.may_run_elsewhere:
            return self._recover(entry, f"{holder.instance}: {message.reason}")
        return self._fail(entry, Failure.DISPATCH_REFUSED, message.reason)

    # What is lost

    def on_instance_lost(self, holder: Holder, reason: str) -> list[Instruction]:
        out: list[Instruction] = []
        for entry in list(self._entries.values()):
            if entry.owner == holder:
                out += self._recover(entry, f"{holder.instance}: {reason}")
            elif entry.grant is not None and entry.grant.receiver == holder:
                out += self._close_grant(entry, f"{holder.instance}: {reason}")
        return out

    def _recover(self, entry: Entry, reason: str) -> list[Instruction]:
        """Nobody is accepted from here on, until the next dispatch, whose epoch is above all that were given."""
        note = entry.note(Step.RECOVERING, reason=reason)
        lost, stops = entry.owner, _stops(entry)
        entry.owner, entry.epoch, entry.grant, entry.holders = None, None, None, {}
        entry.num_recoveries += 1
        stops = [stop for stop in stops if stop.holder != lost]
        if finish_reason := _is_over(entry):
            return [note, *stops, *self._end(entry, finish_reason)]
        if entry.num_recoveries > MAX_RECOVERIES:
            return [note, *stops, *self._fail(entry, Failure.INSTANCE_LOST, reason)]
        num_tokens = len(entry.state.prompt_token_ids) + entry.num_output_tokens
        return [note, *stops, Requeue(request_id=entry.request_id, num_tokens=num_tokens)]

    def _end(self, entry: Entry, finish_reason: FinishReason) -> list[Instruction]:
        """All its tokens are here; only the word that it is over was missing."""
        deliver = Deliver(
            request_id=entry.request_id,
            start_index=entry.num_output_tokens,
            token_ids=(),
            logprobs=(),
            finish_reason=finish_reason,
            num_cached_tokens=entry.num_cached_tokens,
        )
        return [deliver, entry.note(Step.FINISHED, reason=finish_reason.value), *self._forget(entry)]

    # What an earlier life left

    def adopt(self, reports: Mapping[Holder, tuple[Held, ...]], front: str) -> list[Instruction]:
        """Takes over what instances hold from an earlier term: of each request, the one who may run it on.

        Called once, before anything is dispatched, with all who answered; who did not is told to stop when it does.
        """
        found: dict[str, list[tuple[Holder, Held]]] = {}
        for holder, held_here in reports.items():
            for held in held_here:
                found.setdefault(held.state.request_id, []).append((holder, held))
        out: list[Instruction] = []
        for request_id, candidates in found.items():
            candidates.sort(key=_rank)
            if request_id in self._entries:
                out += [_stop(holder, held) for holder, held in candidates]
            else:
                out += [_stop(holder, held) for holder, held in candidates[:-1]]
                out += self._adopt(*candidates[-1], front)
        return out

    def _adopt(self, holder: Holder, held: Held, front: str) -> list[Instruction]:
        state = replace(held.state, front=front)
        entry = Entry(state=replace(state, output_token_ids=(), logprobs=()), owner=holder, epoch=held.epoch)
        entry.holders[holder] = held.epoch
        self._entries[entry.request_id] = entry
        history = TokenUpdate(
            request_id=entry.request_id,
            epoch=held.epoch,
            start_index=0,
            token_ids=state.output_token_ids,
            logprobs=state.logprobs,
            finish_reason=held.finish_reason,
            num_cached_tokens=state.num_cached_tokens,
        )
        out: list[Instruction] = [Adopt(state=entry.state, holder=holder), entry.note(Step.ADOPTED)]
        if held.grant_epoch is not None:
            out.append(Tell(holder, CloseGrant(request_id=entry.request_id, epoch=held.grant_epoch)))
        return [*out, *self.on_tokens(holder, history)]

    def on_holdings(self, holder: Holder, held_here: tuple[Held, ...]) -> list[Instruction]:
        """From one who comes, or comes back, later: what it holds is its own only if this ledger says so."""
        strangers = []
        for held in held_here:
            entry = self._entries.get(held.state.request_id)
            if entry is None or not entry.is_owned_by(holder, held.epoch):
                strangers.append(_stop(holder, held))
        return list(strangers)

    # Endings

    def fail(self, request_id: str, failure: Failure, reason: str) -> list[Instruction]:
        """Ends a request in any state; nothing if it is over already."""
        entry = self._entries.get(request_id)
        return self._fail(entry, failure, reason) if entry else []

    def finish(self, request_id: str) -> list[Instruction]:
        """The front has all it wants (a stop string): a normal end."""
        entry = self._entries.get(request_id)
        return [entry.note(Step.FINISHED, reason="front"), *self._forget(entry)] if entry else []

    def _fail(self, entry: Entry, failure: Failure, reason: str) -> list[Instruction]:
        fail = Fail(request_id=entry.request_id, failure=failure, reason=reason)
        return [fail, entry.note(Step.FAILED, reason=f"{failure.value}: {reason}"), *self._forget(entry)]

    def _forget(self, entry: Entry) -> list[Instruction]:
        del self._entries[entry.request_id]
        return list(_stops(entry))

    def check_integrity(self) -> None:
        for request_id, entry in self._entries.items():
            assert entry.request_id == request_id
            assert (entry.owner is None) == (entry.epoch is None)
            assert entry.grant is None or entry.owner is not None, f"{request_id}: a grant without an owner"
            known = {entry.owner, entry.grant.receiver if entry.grant else entry.owner} - {None}
            assert known <= set(entry.holders), f"{request_id}: a holder nobody would stop"


def _stops(entry: Entry) -> list[Tell]:
    return [Tell(holder, Stop(request_id=entry.request_id, epoch=epoch)) for holder, epoch in entry.holders.items()]


def _stop(holder: Holder, held: Held) -> Tell:
    return Tell(holder, Stop(request_id=held.state.request_id, epoch=held.epoch))


def _rank(candidate: tuple[Holder, Held]) -> tuple[Epoch, bool, int]:
    """The highest epoch; of the same, the source that ran on from that grant; then the longest history (law 7)."""
    _, held = candidate
    return max(held.outranks, held.epoch), held.outranks > held.epoch, len(held.state.output_token_ids)


def _is_over(entry: Entry) -> FinishReason | None:
    """How the tokens that are here end the request, if they do."""
    params, num_prompt_tokens = entry.state.sampling_params, len(entry.state.prompt_token_ids)
    if not entry.output_token_ids:
        return None
    status = stop_status(entry.output_token_ids, num_prompt_tokens, params, sys.maxsize)
    return FINISH_REASONS.get(status) if status else None
