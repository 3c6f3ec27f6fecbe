"""The front's ledger: who holds each request, and which tokens of it the client has."""

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
from router.ledger.ledger import MAX_RECOVERIES, Ledger

__all__ = [
    "MAX_RECOVERIES",
    "Adopt",
    "CannotMove",
    "Deliver",
    "DuplicateEntry",
    "Entry",
    "Fail",
    "Failure",
    "Instruction",
    "Ledger",
    "Note",
    "Place",
    "Requeue",
    "Step",
    "Tell",
]
