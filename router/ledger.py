"""Who holds each request, and which tokens of it the client has: the only place that decides either.

One entry per request, from its admission to its last token. The ledger alone mints epochs; it accepts tokens from the
owner it has on record or from the holder of the one open grant, which then becomes the owner (laws 1 to 5). Methods
are events; each returns what is to be done, and forgets an entry in the same moment as it ends.

    QUEUED --dispatch--> owner --grant's holder speaks--> new owner --last token--> forgotten
                           |            \\-- refused, lost: the grant is closed, the owner stays
                           +-- owner lost, aborted, out of time: forgotten, and everybody who held it is told to stop
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum

from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    FrontMessage,
    Grant,
    GrantRefused,
    Holder,
    PassedOn,
    SequenceState,
    Stop,
    TokenUpdate,
    WantTokens,
)


class Failure(Enum):
    """Why a request ended without its last token."""

    INSTANCE_LOST = "instance lost"
    DISPATCH_REFUSED = "dispatch refused"
    DEADLINE_EXCEEDED = "deadline exceeded"
    ABORTED = "aborted"
    NO_INSTANCE = "no instance"


@dataclass(frozen=True, slots=True)
class Tell:
    holder: Holder
    message: FrontMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """New tokens for the client: exactly the next ones."""

    request_id: str
    start_index: int
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprobs, ...]
    finish_reason: FinishReason | None
    num_cached_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fail:
    request_id: str
    failure: Failure
    reason: str


Instruction = Tell | Deliver | Fail


@dataclass(frozen=True, slots=True)
class Place:
    """An instance to be dispatched to, and where it is reached."""

    holder: Holder
    address: str
    link_address: str


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """`holders`: everyone who may have something of the request, with the highest epoch it was given."""

    state: SequenceState
    owner: Holder | None = None
    epoch: Epoch | None = None
    grant: Grant | None = None
    holders: dict[Holder, Epoch] = field(default_factory=dict)
    num_output_tokens: int = 0

    @property
    def request_id(self) -> str:
        return self.state.request_id

    def hears(self, holder: Holder, epoch: Epoch) -> bool:
        """Whether this is the owner. The open grant's holder becomes it by speaking: its word commits the grant."""
        if self.grant is not None and (self.grant.receiver, self.grant.epoch) == (holder, epoch):
            self.owner, self.epoch, self.grant = holder, epoch, None
        return (self.owner, self.epoch) == (holder, epoch)


class DuplicateEntry(ValueError):
    """A request of that id is under way."""


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

    def dispatch(self, request_id: str, prefill: Place, decode: Place | None, number: int) -> list[Instruction]:
        """To `prefill`, with a grant for `decode`; None keeps the request where it is prefilled."""
        entry = self._entries[request_id]
        assert entry.owner is None, f"{request_id} was dispatched before"
        entry.owner, entry.epoch = prefill.holder, self._mint()
        entry.holders[prefill.holder] = entry.epoch
        if decode is not None:
            entry.grant = self._open_grant(entry, decode)
        dispatch = Dispatch(state=entry.state, epoch=entry.epoch, grant=entry.grant, number=number)
        return [Tell(prefill.holder, dispatch)]

    def _open_grant(self, entry: Entry, to: Place) -> Grant:
        epoch = self._mint()
        entry.holders[to.holder] = epoch
        return Grant(epoch=epoch, receiver=to.holder, address=to.address, link_address=to.link_address)

    def on_tokens(self, holder: Holder, update: TokenUpdate) -> list[Instruction]:
        entry = self._entries.get(update.request_id)
        if entry is None or not entry.hears(holder, update.epoch):
            return [Tell(holder, Stop(request_id=update.request_id, epoch=update.epoch))]
        start = entry.num_output_tokens
        if update.start_index > start:
            want = WantTokens(request_id=update.request_id, epoch=update.epoch, next_index=start)
            return [Tell(holder, want)]
        num_known = start - update.start_index
        entry.num_output_tokens += max(0, len(update.token_ids) - num_known)
        deliver = Deliver(
            request_id=update.request_id,
            start_index=start,
            token_ids=update.token_ids[num_known:],
            logprobs=update.logprobs[num_known:],
            finish_reason=update.finish_reason,
            num_cached_tokens=update.num_cached_tokens,
        )
        if update.finish_reason is not None:
            return [deliver, *self._finished(entry, holder, update.epoch)]
        return [deliver] if deliver.token_ids else []

    def _finished(self, entry: Entry, holder: Holder, epoch: Epoch) -> list[Instruction]:
        del entry.holders[holder]
        ack = Tell(holder, AckFinished(request_id=entry.request_id, epoch=epoch))
        return [ack, *self._forget(entry)]

    def on_activated(self, holder: Holder, message: Activated) -> list[Instruction]:
        entry = self._entries.get(message.request_id)
        if entry is None or not entry.hears(holder, message.epoch):
            return [Tell(holder, Stop(request_id=message.request_id, epoch=message.epoch))]
        return [Tell(holder, AckActivated(request_id=message.request_id, epoch=message.epoch))]

    def on_grant_refused(self, message: GrantRefused) -> list[Instruction]:
        """From either side: the source runs on, or the receiver destroyed a reservation that had its baton."""
        entry = self._entries.get(message.request_id)
        if entry is None or entry.grant is None or entry.grant.epoch != message.epoch:
            return []
        return self._close_grant(entry)

    def _close_grant(self, entry: Entry) -> list[Instruction]:
        """A write here is what fences the receiver off; the messages only tidy up."""
        assert entry.grant is not None
        assert entry.owner is not None
        receiver, epoch = entry.grant.receiver, entry.grant.epoch
        entry.grant = None
        del entry.holders[receiver]
        return [
            Tell(entry.owner, CloseGrant(request_id=entry.request_id, epoch=epoch)),
            Tell(receiver, Stop(request_id=entry.request_id, epoch=epoch)),
        ]

    def on_passed_on(self, holder: Holder, message: PassedOn) -> list[Instruction]:
        """The owner on record let go before it heard that the grant was closed: the receiver took the request along."""
        entry = self._entries.get(message.request_id)
        if entry is None or entry.owner != holder or entry.grant is not None:
            return []
        if entry.epoch is None or entry.epoch >= message.epoch:
            return []  # of an earlier request with this id
        return self._fail(entry, Failure.INSTANCE_LOST, "it had just been passed to an instance that was lost")

    def on_dispatch_refused(self, holder: Holder, message: DispatchRefused) -> list[Instruction]:
        entry = self._entries.get(message.request_id)
        if entry is None or (entry.owner, entry.epoch) != (holder, message.epoch):
            return []
        return self._fail(entry, Failure.DISPATCH_REFUSED, message.reason)

    def on_instance_lost(self, holder: Holder, reason: str) -> list[Instruction]:
        out: list[Instruction] = []
        for entry in list(self._entries.values()):
            if entry.owner == holder:
                out += self._fail(entry, Failure.INSTANCE_LOST, f"{holder.instance}: {reason}")
            elif entry.grant is not None and entry.grant.receiver == holder:
                out += self._close_grant(entry)
        return out

    def fail(self, request_id: str, failure: Failure, reason: str) -> list[Instruction]:
        """Ends a request in any state; nothing if it is over already."""
        entry = self._entries.get(request_id)
        return self._fail(entry, failure, reason) if entry else []

    def finish(self, request_id: str) -> list[Instruction]:
        """The front has all it wants (a stop string): a normal end."""
        entry = self._entries.get(request_id)
        return self._forget(entry) if entry else []

    def _fail(self, entry: Entry, failure: Failure, reason: str) -> list[Instruction]:
        return [Fail(request_id=entry.request_id, failure=failure, reason=reason), *self._forget(entry)]

    def _forget(self, entry: Entry) -> list[Instruction]:
        del self._entries[entry.request_id]
        return [Tell(holder, Stop(request_id=entry.request_id, epoch=epoch)) for holder, epoch in entry.holders.items()]

    def check_integrity(self) -> None:
        for request_id, entry in self._entries.items():
            assert entry.request_id == request_id
            assert (entry.owner is None) == (entry.epoch is None)
            assert entry.grant is None or entry.owner is not None, f"{request_id}: a grant without an owner"
            known = {entry.owner, entry.grant.receiver if entry.grant else entry.owner} - {None}
            assert known <= set(entry.holders), f"{request_id}: a holder nobody would stop"
