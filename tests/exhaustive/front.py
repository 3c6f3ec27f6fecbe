"""The router of the model: the real ledger, the client's stream, and what the router's body does around them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from cluster.messages import Activated, DispatchRefused, GrantRefused, Held, Holder, Holdings, PassedOn, StepUpdate
from router.adoption import Adoption
from router.ledger import CannotMove, Deliver, Fail, Failure, Instruction, Ledger, Place, Requeue, Tell
from tests.exhaustive.node import ANSWER, FRONT, REQUEST


class Violation(AssertionError):
    """A law is broken."""


class Front:
    """`turn(event, ...)` returns ("tell", holder, message) for each message that is to leave.

    `num_received` and `end` are the client's: they outlive a restart.
    """

    def __init__(self) -> None:
        self.term = 1
        self.num_received = 0
        self.end: str | None = None
        self._begin()

    def _begin(self) -> None:
        self.ledger = Ledger(self.term)
        self.adoption: Adoption | None = None
        self.is_queued = False
        self.joined: set[Holder] = set()

    @property
    def name(self) -> str:
        return f"{FRONT}/{self.term}"

    @property
    def entry(self) -> Any:
        return next(iter(self.ledger), None)

    @property
    def is_empty(self) -> bool:
        return not len(self.ledger) and self.adoption is None

    def turn(self, event: str, *args: Any) -> list[tuple[Any, ...]]:
        out = self._carry_out(getattr(self, event)(*args))
        self.ledger.check_integrity()
        return out

    # Instances

    def lost(self, holder: Holder) -> list[Instruction]:
        self.joined.discard(holder)
        return self.ledger.on_instance_lost(holder, "")

    def holdings(self, holder: Holder, held: tuple[Held, ...]) -> list[Instruction]:
        self.joined.add(holder)
        if self.adoption is None:
            return self.ledger.on_holdings(holder, held)
        self.adoption.report(holder, held)
        return self._adopt_if_over()

    def message(self, holder: Holder, message: Any) -> list[Instruction]:
        if isinstance(message, Holdings):
            return self.holdings(holder, message.held)
        if self.adoption is not None:
            if (holder, message) not in self.adoption.early:  # said again: once is as good
                self.adoption.early.append((holder, message))
            return []
        match message:
            case StepUpdate():
                return [it for update in message.updates for it in self.ledger.on_tokens(holder, update)]
            case Activated():
                return self.ledger.on_activated(holder, message)
            case GrantRefused():
                return self.ledger.on_grant_refused(message)
            case PassedOn():
                return self.ledger.on_passed_on(holder, message)
            case DispatchRefused():
                return self.ledger.on_dispatch_refused(holder, message)
        raise AssertionError(message)

    # Its own life

    def restart(self, holders: Iterable[Holder]) -> list[Instruction]:
        self.term += 1
        self._begin()
        self.adoption = Adoption()
        self.adoption.expect(holders)
        return []

    def exclude(self, holder: Holder) -> list[Instruction]:
        assert self.adoption is not None
        self.adoption.exclude(holder)
        return self._adopt_if_over()

    def exclude_silent(self) -> list[Instruction]:
        assert self.adoption is not None
        self.adoption.exclude_silent()
        return self._adopt_if_over()

    def _adopt_if_over(self) -> list[Instruction]:
        adoption = self.adoption
        if adoption is None or not adoption.is_over:
            return []
        self.adoption = None
        out = self.ledger.adopt(adoption.reports, self.name)
        for holder in adoption.reports:
            if holder not in self.joined:
                out += self.ledger.on_instance_lost(holder, "")
        for holder, message in adoption.early:
            out += self.message(holder, message)
        return out

    # The request

    def submit(self) -> list[Instruction]:
        """The client's first try, or another under the same id with a router that does not know of it."""
        self.ledger.admit(replace(REQUEST, front=self.name))
        self.is_queued = True
        return []

    def dispatch(self, prefill: Holder, decode: Holder | None) -> list[Instruction]:
        self.is_queued = False
        return self.ledger.dispatch("r", _place(prefill), _place(decode) if decode else None, 0)

    def hand_over(self, to: Holder) -> list[Instruction]:
        try:
            return self.ledger.hand_over("r", _place(to), "balance")
        except CannotMove:
            return []

    def abort(self) -> list[Instruction]:
        """By the client; where a router does not know of the request yet, the client is just gone."""
        self.end = "aborted"
        return self.give_up()

    def give_up(self) -> list[Instruction]:
        """Its client has not come back."""
        return self.ledger.fail("r", Failure.ABORTED, "")

    def _carry_out(self, instructions: list[Instruction]) -> list[tuple[Any, ...]]:
        out: list[tuple[Any, ...]] = []
        for instruction in instructions:
            match instruction:
                case Tell(holder, message):
                    out.append(("tell", holder, message))
                case Deliver():
                    self._deliver(instruction)
                case Fail():
                    self._fail(instruction)
                case Requeue():
                    self.is_queued = True
        if not len(self.ledger):
            self.is_queued = False
        return out

    def _deliver(self, deliver: Deliver) -> None:
        start, end = deliver.start_index, deliver.start_index + len(deliver.token_ids)
        if deliver.token_ids != ANSWER[start:end]:
            raise Violation(f"tokens {deliver.token_ids} at {start}, where {ANSWER[start:end]} are right")
        if self.end is not None:
            return
        if start > self.num_received:
            raise Violation(f"tokens from {start} on, where {self.num_received} is next")
        self.num_received = max(end, self.num_received)
        if deliver.finish_reason is not None:
            if self.num_received != len(ANSWER):
                raise Violation(f"finished after {self.num_received} of {len(ANSWER)} tokens")
            self.end = "finished"

    def _fail(self, fail: Fail) -> None:
        if self.end is None:
            if fail.failure is not Failure.INSTANCE_LOST:
                raise Violation(f"failed without need: {fail.failure.value} {fail.reason}")
            self.end = "failed"


def _place(holder: Holder) -> Place:
    return Place(holder, "address", "link")
