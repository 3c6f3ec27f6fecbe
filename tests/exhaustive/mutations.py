"""Rules of the protocol, switched off one at a time: the search must find what each was made against.

A mutation replaces methods of the real classes for the length of a search.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

from cluster.handover.protocol.receiver import HandoverReceiver, ReceiverInstruction, ReceiverState
from cluster.handover.protocol.source import HandoverSource, Release, SourceInstruction, SourceState
from cluster.messages import Epoch, Holder
from router.ledger.entry import Entry
from router.ledger.ledger import Ledger
from tests.exhaustive.budget import Budget


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutation:
    """`budget`: what has to go wrong for the trap to close. `forgets_lives`: see `World`."""

    name: str
    budget: Budget
    patches: Callable[[], list[Any]] = list
    forgets_lives: bool = False

    @contextmanager
    def applied(self) -> Iterator[None]:
        with ExitStack() as stack:
            for it in self.patches():
                stack.enter_context(it)
            yield


# 2. A reservation is not destroyed when it is refused: a baton that comes for it later is taken.


def _refuses_and_keeps(self: HandoverReceiver, reason: str) -> list[ReceiverInstruction]:
    if self.state in (ReceiverState.RESERVED, ReceiverState.PASSED):
        return [self._refusal(reason)]
    return []


# 3. The ledger takes the word of whoever has the current epoch or the next.


def _is_current_or_next(self: Entry, holder: Holder, epoch: Epoch) -> bool:
    return self.epoch is not None and epoch.term == self.epoch.term and 0 <= epoch.n - self.epoch.n <= 1


def _hears_current_or_next(self: Ledger, entry: Entry | None, holder: Holder, epoch: Epoch) -> Any:
    if entry is None or not _is_current_or_next(entry, holder, epoch):
        return False, []
    if epoch != entry.epoch:
        entry.owner, entry.epoch, entry.grant = holder, epoch, None
        entry.holders.setdefault(holder, epoch)
    return True, []


# 4. The source does not wait for an answer to its baton, and the receiver says once that it runs.


def _lets_go_at_once(self: HandoverSource, *args: Any) -> list[SourceInstruction]:
    instructions = _advance(self, *args)
    if self.state is SourceState.PASSED:
        self.transition(SourceState.RELEASED)
        instructions.append(Release())
    return instructions


_advance = HandoverSource._advance

# 5. Recovery dispatches at the epoch of the grant that was open.


def _recovers_at_the_granted_epoch(self: Ledger, entry: Entry, reason: str) -> Any:
    granted = entry.grant.epoch if entry.grant is not None else None
    out = _recover(self, entry, reason)
    if granted is not None and granted.n == self._num_epochs:
        self._num_epochs -= 1
    return out


_recover = Ledger._recover

MUTATIONS = (
    Mutation(
        name="without incarnations",
        budget=Budget(grants=1, crashes=1),
        forgets_lives=True,
    ),
    Mutation(
        name="without one-shot reservations",
        budget=Budget(grants=1, timers=1),
        patches=lambda: [patch.object(HandoverReceiver, "on_failed", _refuses_and_keeps)],
    ),
    Mutation(
        name="any current or next epoch",
        budget=Budget(grants=2, suspicions=1),
        patches=lambda: [
            patch.object(Ledger, "_hears", _hears_current_or_next),
            patch.object(Entry, "is_granted_to", lambda *_: False),
            patch.object(Entry, "is_owned_by", _is_current_or_next),
        ],
    ),
    Mutation(
        name="without an answer to the baton",
        budget=Budget(grants=1, losses=1),
        patches=lambda: [patch.object(HandoverSource, "_advance", _lets_go_at_once)],
    ),
    Mutation(
        name="recovery at a granted epoch",
        budget=Budget(grants=1, suspicions=1),
        patches=lambda: [patch.object(Ledger, "_recover", _recovers_at_the_granted_epoch)],
    ),
)
