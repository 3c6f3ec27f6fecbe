"""The side that has the request: reserves at the receiver, sends blocks in stages, and passes the baton with the last.

    RESERVING --Reserved--> TRANSFERRING --frozen, everything offered--> PASSED --PassTaken--> RELEASED
        |                        |                                         |
        +------ refused, timed out, peer lost, closed by the ledger -------+--Refused, closed--> RAN_ON
        +------ the request ended (stop, finish, deadline) ----------------+-------------------> RELEASED

RAN_ON: the request stays here and goes on. RELEASED: it is not ours any more. Blocks that a link still reads are pinned
by whoever started the transfer (law 9), whatever becomes of the handover. Once PASSED, only a refusal of this very
reservation, or the ledger, lets the request run here again (law 3).
"""

from dataclasses import dataclass
from enum import Enum, auto

from cluster.handover.protocol.machine import Machine
from cluster.messages import Cancel, Grant, Pass, Refused, Reserve, Reserved, SequenceState, SourceMessage


class SourceState(Enum):
    RESERVING = auto()
    TRANSFERRING = auto()
    PASSED = auto()
    RELEASED = auto()
    RAN_ON = auto()


_TABLE = {
    SourceState.RESERVING: frozenset({SourceState.TRANSFERRING, SourceState.RAN_ON, SourceState.RELEASED}),
    SourceState.TRANSFERRING: frozenset({SourceState.PASSED, SourceState.RAN_ON, SourceState.RELEASED}),
    SourceState.PASSED: frozenset({SourceState.RAN_ON, SourceState.RELEASED}),
    SourceState.RELEASED: frozenset(),
    SourceState.RAN_ON: frozenset(),
}


@dataclass(frozen=True, slots=True)
class Send:
    """Tell the receiver."""

    message: SourceMessage


@dataclass(frozen=True, slots=True)
class Transfer:
    """Offer blocks [first_block, first_block + num_blocks) of the sequence to the reservation, over the link."""

    reservation: int
    first_block: int
    num_blocks: int


@dataclass(frozen=True, slots=True)
class RunOn:
    """The handover is off and the request goes on here; the ledger is told to close the grant.

    `unreachable`: not the receiver's will, but a way there that is broken.
    """

    reason: str
    unreachable: bool = False


@dataclass(frozen=True, slots=True)
class Doubt:
    """Nobody answers the baton: the ledger, which may hear both sides, is to close the grant if it is open still."""

    reason: str


@dataclass(frozen=True, slots=True)
class Release:
    """The request is not ours any more: let go of it."""


SourceInstruction = Send | Transfer | RunOn | Doubt | Release


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a handover is to go.

    `decodes_on`: the request goes on here while its blocks travel, one stage after the other, each with what became
    full during the one before; it is to stand still when `tail_blocks` at most are left, when `max_stages` have been
    sent, or when the room over there is used up. Otherwise it stands still anyway, and blocks leave as they are sealed.
    """

    decodes_on: bool
    give_up_at_s: float
    repeat_s: float
    doubt_after_s: float
    max_stages: int = 8
    tail_blocks: int = 2


class HandoverSource(Machine[SourceState]):
    """One handover, seen from the source. Methods are events; each returns what is to be done."""

    def __init__(self, request_id: str, grant: Grant, terms: Terms) -> None:
        super().__init__(request_id, SourceState.RESERVING, _TABLE)
        self.grant = grant
        self.stage = 0
        self.num_sent_blocks = 0
        self._terms = terms
        self._repeat_at_s = 0.0
        self._doubt_at_s = 0.0
        self._num_tokens_reserved = 0
        self._reservation: int | None = None
        self._num_sealed = 0
        self._num_offered = 0
        self._num_arrived = 0
        self._frozen: tuple[int, int, int, SequenceState] | None = None
        self._pass: Pass | None = None

    @property
    def is_open(self) -> bool:
        return self.state not in (SourceState.RELEASED, SourceState.RAN_ON)

    @property
    def holds_baton(self) -> bool:
        """Whether the request is still ours to run, to report and to finish."""
        return self.state in (SourceState.RESERVING, SourceState.TRANSFERRING)

    @property
    def decodes_on(self) -> bool:
        return self._terms.decodes_on

    def start(self, num_tokens: int, block_hashes: tuple[bytes, ...], lease_s: float) -> list[SourceInstruction]:
        """Room for `num_tokens` is asked for; a request that decodes on does not wait for it."""
        self._num_tokens_reserved = num_tokens
        reserve = Reserve(
            request_id=self.request_id,
            epoch=self.grant.epoch,
            num_tokens=num_tokens,
            block_hashes=block_hashes,
            lease_s=lease_s,
            may_wait=not self.decodes_on,
        )
        return [Send(reserve)]

    def on_reserved(self, message: Reserved, num_sealed_blocks: int, now_s: float) -> list[SourceInstruction]:
        if self.state is not SourceState.RESERVING:
            return []
        self.transition(SourceState.TRANSFERRING)
        self._num_sealed = num_sealed_blocks
        self._reservation = message.reservation
        self._num_offered = self._num_arrived = message.num_cached_blocks
        return self._advance(now_s)

    def on_sealed(self, num_sealed_blocks: int, now_s: float) -> list[SourceInstruction]:
        """The first `num_sealed_blocks` of the sequence are full and computed; fewer again after a preemption."""
        self._num_sealed = num_sealed_blocks
        return self._advance(now_s)

    def on_transferred(self, num_blocks: int, now_s: float) -> list[SourceInstruction]:
        """So many more blocks have arrived there and were checked."""
        self._num_arrived += num_blocks
        self.num_sent_blocks += num_blocks
        return self._advance(now_s)

    def must_freeze(self, num_blocks: int, num_tokens: int) -> bool:
        """Whether a sequence of so many blocks and tokens, which decodes on, is to stand still now."""
        if self.state is not SourceState.TRANSFERRING or self._frozen is not None:
            return False
        is_last_stage_over = self.stage >= self._terms.max_stages and self._num_arrived == self._num_offered
        return (
            num_blocks - self._num_arrived <= self._terms.tail_blocks
            or is_last_stage_over
            or num_tokens >= self._num_tokens_reserved
        )

    def on_frozen(
        self, num_blocks: int, num_computed_tokens: int, num_reported_tokens: int, state: SequenceState, now_s: float
    ) -> list[SourceInstruction]:
        """The sequence stands still: `num_blocks` blocks, the last perhaps partly filled, are all there is to send."""
        self._frozen = (num_blocks, num_computed_tokens, num_reported_tokens, state)
        return self._advance(now_s)

    def _advance(self, now_s: float) -> list[SourceInstruction]:
        if self.state is not SourceState.TRANSFERRING:
            return []
        assert self._reservation is not None
        out: list[SourceInstruction] = []
        ready = self._num_ready()
        if ready > self._num_offered:
            self.stage += 1
            out.append(Transfer(self._reservation, self._num_offered, ready - self._num_offered))
            self._num_offered = ready
        if self._frozen is not None:
            out.append(self._pass_baton(self._reservation, *self._frozen, now_s))
        return out

    def _num_ready(self) -> int:
        """Leading blocks that may be offered now; of a request that decodes on, when the stage before is over."""
        if self._frozen is not None:
            return self._frozen[0]
        is_stage_over = self._num_arrived == self._num_offered and self.stage < self._terms.max_stages
        return self._num_sealed if is_stage_over or not self.decodes_on else self._num_offered

    def _pass_baton(
        self,
        reservation: int,
        num_blocks: int,
        num_computed_tokens: int,
        num_reported_tokens: int,
        state: SequenceState,
        now_s: float,
    ) -> Send:
        self.transition(SourceState.PASSED)
        self._repeat_at_s = now_s + self._terms.repeat_s
        self._doubt_at_s = now_s + self._terms.doubt_after_s
        self._pass = Pass(
            request_id=self.request_id,
            epoch=self.grant.epoch,
            reservation=reservation,
            num_blocks=num_blocks,
            num_computed_tokens=num_computed_tokens,
            num_reported_tokens=num_reported_tokens,
            state=state,
        )
        return Send(self._pass)

    def on_transfer_failed(self, reason: str) -> list[SourceInstruction]:
        """Before the baton is passed the handover is off; afterwards the receiver is asked to refuse it."""
        if self.state is SourceState.TRANSFERRING:
            return self._run_on(f"transfer failed: {reason}", cancel=True, unreachable=True)
        return [Send(self._cancel())] if self.state is SourceState.PASSED else []

    def on_refused(self, message: Refused) -> list[SourceInstruction]:
        if self.holds_baton or self.state is SourceState.PASSED:
            return self._run_on(message.reason, cancel=False)
        return []

    def on_grant_closed(self) -> list[SourceInstruction]:
        """The ledger fenced the receiver off: we are the owner it has on record."""
        if self.holds_baton or self.state is SourceState.PASSED:
            return self._run_on("closed by the ledger", cancel=True)
        return []

    def on_peer_lost(self) -> list[SourceInstruction]:
        """Without the baton passed we simply keep it; with it passed, the Pass is repeated until it is answered."""
        return self._run_on("receiver lost", cancel=False, unreachable=True) if self.holds_baton else []

    def on_preempted(self) -> list[SourceInstruction]:
        """Its blocks are gone before they were all sent: room elsewhere must not wait for them to be computed again."""
        return self._run_on("preempted", cancel=True) if self.holds_baton else []

    def on_pass_taken(self) -> list[SourceInstruction]:
        if self.state is not SourceState.PASSED:
            return []
        self.transition(SourceState.RELEASED)
        return [Release()]

    def on_request_ended(self) -> list[SourceInstruction]:
        """The caller lets go of the request by itself: finished, stopped or expired."""
        if not self.is_open:
            return []
        self.transition(SourceState.RELEASED)
        return [Send(self._cancel())]

    def tick(self, now_s: float) -> list[SourceInstruction]:
        if self.state is SourceState.RESERVING and now_s >= self._terms.give_up_at_s:
            return self._run_on("no reservation in time", cancel=True)
        if self.state is SourceState.PASSED and now_s >= self._repeat_at_s:
            assert self._pass is not None
            self._repeat_at_s = now_s + self._terms.repeat_s
            doubt = [Doubt("nobody answers the baton")] if now_s >= self._doubt_at_s else []
            return [Send(self._pass), *doubt]
        return []

    def _cancel(self) -> Cancel:
        return Cancel(request_id=self.request_id, epoch=self.grant.epoch)

    def _run_on(self, reason: str, *, cancel: bool, unreachable: bool = False) -> list[SourceInstruction]:
        self.transition(SourceState.RAN_ON)
        run_on = RunOn(reason, unreachable)
        return [Send(self._cancel()), run_on] if cancel else [run_on]
