"""One request in the ledger."""

from dataclasses import dataclass, field, replace

from cluster.engine.sequence import TokenLogprobs
from cluster.messages import Epoch, Grant, Holder, SequenceState
from router.ledger.instructions import Note, Step


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """`state`: the request and every token that its client was sent.

    `holders`: everyone who may have something of the request, with the highest epoch it was given.
    """

    state: SequenceState
    output_token_ids: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    num_cached_tokens: int = 0
    owner: Holder | None = None
    epoch: Epoch | None = None
    grant: Grant | None = None
    grant_reason: str = ""
    holders: dict[Holder, Epoch] = field(default_factory=dict)
    num_recoveries: int = 0

    @property
    def request_id(self) -> str:
        return self.state.request_id

    @property
    def num_output_tokens(self) -> int:
        return len(self.output_token_ids)

    def current_state(self) -> SequenceState:
        return replace(
            self.state,
            output_token_ids=tuple(self.output_token_ids),
            logprobs=tuple(self.logprobs),
            num_cached_tokens=self.num_cached_tokens,
        )

    def is_granted_to(self, holder: Holder, epoch: Epoch) -> bool:
        return self.grant is not None and (self.grant.receiver, self.grant.epoch) == (holder, epoch)

    def is_owned_by(self, holder: Holder, epoch: Epoch) -> bool:
        return (self.owner, self.epoch) == (holder, epoch)

    def note(self, step: Step, *, peer: Holder | None = None, reason: str = "", unreachable: bool = False) -> Note:
        return Note(
            request_id=self.request_id,
            step=step,
            holder=self.owner,
            peer=peer,
            reason=reason,
            unreachable=unreachable,
            num_output_tokens=self.num_output_tokens,
        )


class DuplicateEntry(ValueError):
    """A request of that id is under way."""


class CannotMove(ValueError):
    """Why this request cannot be handed over now; nothing has changed."""
