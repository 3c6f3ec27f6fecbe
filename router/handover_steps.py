"""The steps of a handover in the router, by name, where tests make things go wrong: see `cluster.failpoints`.

router.grant     an instance is about to be told whom it may pass a request to
router.commit    the receiver has spoken: the request is its own
router.close     the grant is taken back: the request stays where it is
router.recover   the owner is lost: the request is about to be dispatched again
"""

from cluster import failpoints
from cluster.messages import Dispatch, HandOver
from router.ledger import Instruction, Note, Step, Tell

_NOTED = {Step.PASSED: "router.commit", Step.KEPT: "router.close", Step.RECOVERING: "router.recover"}


def before(instruction: Instruction) -> None:
    if failpoints.are_armed() and (step := _step_of(instruction)):
        failpoints.hit(step)


def _step_of(instruction: Instruction) -> str | None:
    match instruction:
        case Tell(message=HandOver()) | Tell(message=Dispatch(grant=object())):
            return "router.grant"
        case Note(step=step):
            return _NOTED.get(step)
    return None
