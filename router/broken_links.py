"""Which instances cannot hand anything to which: told by failed handovers, and tried again after a while."""

import asyncio

from cluster.messages import Holder
from router.ledger import Note, Step
from router.observer import RouterObserver
from router.scheduler import Scheduler


class BrokenLinks(RouterObserver):
    """Keeps `Member.unreachable`, which dispatch and rescheduling go by."""

    def __init__(self, scheduler: Scheduler, *, retry_after_s: float) -> None:
        self._scheduler = scheduler
        self._retry_after_s = retry_after_s

    def on_note(self, note: Note) -> None:
        if note.step is not Step.KEPT or not note.unreachable or note.holder is None or note.peer is None:
            return
        if source := self._scheduler.member(note.holder):
            source.unreachable.add(note.peer)
            asyncio.get_running_loop().call_later(self._retry_after_s, self._try_again, note.holder, note.peer)

    def _try_again(self, source: Holder, target: Holder) -> None:
        if member := self._scheduler.member(source):
            member.unreachable.discard(target)
