"""Moves running requests while they run: asks the policy every `interval_s`, and at once while something is drained."""

import asyncio
import logging
from collections.abc import Callable

from cluster.messages import Holder
from router.ledger import CannotMove, Ledger, Note, Place, Step
from router.loads import LastMove, instance_loads
from router.observer import RouterObserver
from router.policies import RESCHEDULING_POLICIES, InstanceLoad, ReschedulingConfig
from router.scheduler import Member, Scheduler

HandOverTo = Callable[[str, Place, str], None]

log = logging.getLogger(__name__)


class Rescheduler(RouterObserver):
    """`hand_over` is the ledger's, carried out: it raises CannotMove."""

    def __init__(self, config: ReschedulingConfig, ledger: Ledger, scheduler: Scheduler, hand_over: HandOverTo) -> None:
        self._policy = RESCHEDULING_POLICIES[config.policy](config)
        self._moves_only_drains = config.policy == "none"
        self._interval_s = config.interval_s
        self._ledger = ledger
        self._scheduler = scheduler
        self._hand_over = hand_over
        self._last_moves: dict[str, LastMove] = {}
        self._round = 0
        self._is_due = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled. Sooner than the interval only when `hurry` was called."""
        while True:
            try:
                await asyncio.wait_for(self._is_due.wait(), self._interval_s)
            except TimeoutError:
                self.begin_round()
            self._is_due.clear()
            try:
                self.act()
            except Exception:  # a defect of a policy must not end all drains
                log.exception("this round moves nothing")

    def begin_round(self) -> None:
        """The interval is over: what moved before is a round older."""
        self._round += 1

    def hurry(self) -> None:
        self._is_due.set()

    def loads(self) -> list[InstanceLoad]:
        return instance_loads(self._ledger, self._scheduler, self._last_moves, self._round)

    def act(self) -> None:
        """What the policy wants moved now."""
        if self._moves_only_drains and not self._scheduler.draining:
            return
        if self._ledger and sum(1 for _ in self._scheduler.members) > 1:
            for move in self._policy.plan(self.loads(), self._scheduler.forecast):
                if target := self._scheduler.member(move.target):
                    self._move(move.request_id, target, move.reason)

    def _move(self, request_id: str, target: Member, reason: str) -> None:
        entry = self._ledger.get(request_id)
        if entry is None or entry.owner is None:
            return
        source = entry.owner
        member = self._scheduler.member(source)
        if member is not None and target.place.holder in member.unreachable:
            return
        try:
            self._hand_over(request_id, target.place, self._scheduler.draining.get(source.instance, reason))
        except CannotMove as error:
            log.debug("%s", error)
        else:
            self._last_moves[request_id] = LastMove(self._round, source)

    # RouterObserver

    def on_note(self, note: Note) -> None:
        match note.step:
            case Step.PASSED if note.reason in ("drain", "flip"):
                self.hurry()
            case Step.PASSED if note.reason == "migrate" and note.peer is not None:
                self._last_moves[note.request_id] = LastMove(self._round, note.peer)
            case Step.FINISHED | Step.FAILED | Step.RECOVERING:
                self._last_moves.pop(note.request_id, None)

    def on_joined(self, member: Member) -> None:
        if self._scheduler.draining:
            self.hurry()  # somebody to take what is to leave

    def on_lost(self, holder: Holder) -> None:
        if self._scheduler.draining:
            self.hurry()
