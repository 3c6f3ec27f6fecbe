"""The steps of a handover in an instance, by name, where tests make things go wrong: see `cluster.failpoints`.

    handover.source.reserve      about to ask for room
    handover.source.transfer     about to send blocks
    handover.source.freeze       the sequence stands still
    handover.source.pass         about to pass the baton
    handover.source.release      told that it was taken
    handover.receiver.reserve    asked for room
    handover.receiver.room       about to say that there is room
    handover.receiver.arrive     blocks have arrived
    handover.receiver.pass       told of the baton
    handover.receiver.activate   about to say that it runs here

All but `arrive`, which is in a link's thread, are in the step loop's.
"""

from collections.abc import Iterable

from cluster import failpoints
from cluster.instance.effects import Effect, StartTransfer, ToFront, ToReceiver, ToSource
from cluster.messages import Activated, Pass, PassTaken, ReceiverMessage, Reserve, Reserved, SourceMessage

_HEARD = {
    Reserve: "handover.receiver.reserve",
    Pass: "handover.receiver.pass",
    PassTaken: "handover.source.release",
}


def before_all(effects: Iterable[Effect]) -> None:
    """The sequence stands still and nothing is said of it yet: its last blocks and the baton leave together."""
    if failpoints.are_armed() and any(isinstance(it, ToReceiver) and isinstance(it.message, Pass) for it in effects):
        failpoints.hit("handover.source.freeze")


def before(effect: Effect) -> None:
    if failpoints.are_armed() and (step := _step_of(effect)):
        failpoints.hit(step)


def _step_of(effect: Effect) -> str | None:
    match effect:
        case ToReceiver(message=Reserve()):
            return "handover.source.reserve"
        case StartTransfer():
            return "handover.source.transfer"
        case ToReceiver(message=Pass()):
            return "handover.source.pass"
        case ToSource(message=Reserved()):
            return "handover.receiver.room"
        case ToFront(message=Activated()):
            return "handover.receiver.activate"
    return None


def hearing(message: SourceMessage | ReceiverMessage) -> None:
    if failpoints.are_armed() and (step := _HEARD.get(type(message))):
        failpoints.hit(step)


def arrived() -> None:
    failpoints.hit("handover.receiver.arrive")
