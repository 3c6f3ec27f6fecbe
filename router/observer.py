"""What can be followed of the router: traces, metrics, operators and the rescheduler do."""

from cluster.engine.sequence import FinishReason
from cluster.messages import Holder, Probed, Transfers
from router.errors import BatonError
from router.ledger import Note
from router.scheduler import Assignment, Member


class RouterObserver:
    """Told in the router's event loop, after its own picture has changed. What is not overridden is not of interest."""

    def on_assigned(self, assignment: Assignment) -> None:
        """A request is about to be dispatched."""

    def on_note(self, note: Note) -> None:
        """A step of a request."""

    def on_tokens(self, request_id: str, num_tokens: int) -> None:
        """So many new tokens for the client."""

    def on_ended(self, finish_reason: FinishReason | None, error: BatonError | None) -> None:
        """A request's stream is over; neither: its client has all it wants."""

    def on_joined(self, member: Member) -> None:
        """An instance may be dispatched to."""

    def on_snapshot(self, member: Member) -> None:
        """An instance has reported."""

    def on_measured(self, holder: Holder, message: Probed | Transfers) -> None:
        """An instance has moved KV, or has probed a link as it was asked to."""

    def on_lost(self, holder: Holder) -> None:
        """An instance is not there any more; what it held is being recovered."""
