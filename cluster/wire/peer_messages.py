"""What the source and the receiver of a handover say to each other."""

from typing import Any

from cluster.messages import (
    Cancel,
    Pass,
    PassTaken,
    ReceiverMessage,
    Refused,
    Renew,
    Reserve,
    Reserved,
    SourceMessage,
)
from cluster.pb import instance_pb2
from cluster.wire.values import about_from_pb, about_to_pb, state_from_pb, state_to_pb


def source_message_to_pb(message: SourceMessage, now_s: float) -> instance_pb2.SourceMessage:
    match message:
        case Reserve():
            reserve = instance_pb2.Reserve(
                **about_to_pb(message),
                num_tokens=message.num_tokens,
                block_hashes=message.block_hashes,
                lease_s=message.lease_s,
                may_wait=message.may_wait,
            )
            return instance_pb2.SourceMessage(reserve=reserve)
        case Pass():
            baton = instance_pb2.Pass(
                **about_to_pb(message),
                reservation=message.reservation,
                num_blocks=message.num_blocks,
                num_computed_tokens=message.num_computed_tokens,
                num_reported_tokens=message.num_reported_tokens,
                state=state_to_pb(message.state, now_s),
            )
            # `pass` is a keyword of Python: no argument can be named so
            fields: dict[str, Any] = {"pass": baton}
            return instance_pb2.SourceMessage(**fields)
        case Cancel():
            cancel = instance_pb2.Cancel(**about_to_pb(message))
            return instance_pb2.SourceMessage(cancel=cancel)
        case Renew():
            return instance_pb2.SourceMessage(renew=instance_pb2.Renew())


def source_message_from_pb(message: instance_pb2.SourceMessage, now_s: float) -> SourceMessage | None:
    """None for the hello."""
    match message.WhichOneof("message"):
        case "reserve":
            reserve = message.reserve
            return Reserve(
                **about_from_pb(reserve),
                num_tokens=reserve.num_tokens,
                block_hashes=tuple(reserve.block_hashes),
                lease_s=reserve.lease_s,
                may_wait=reserve.may_wait,
            )
        case "pass":
            baton = getattr(message, "pass")
            return Pass(
                **about_from_pb(baton),
                reservation=baton.reservation,
                num_blocks=baton.num_blocks,
                num_computed_tokens=baton.num_computed_tokens,
                num_reported_tokens=baton.num_reported_tokens,
                state=state_from_pb(baton.state, now_s),
            )
        case "cancel":
            return Cancel(**about_from_pb(message.cancel))
        case "renew":
            return Renew()
        case _:
            return None


def receiver_message_to_pb(message: ReceiverMessage) -> instance_pb2.ReceiverMessage:
    about = about_to_pb(message)
    match message:
        case Reserved():
            reserved = instance_pb2.Reserved(
                **about, reservation=message.reservation, num_cached_blocks=message.num_cached_blocks
            )
            return instance_pb2.ReceiverMessage(reserved=reserved)
        case Refused():
            return instance_pb2.ReceiverMessage(refused=instance_pb2.Refused(**about, reason=message.reason))
        case PassTaken():
            return instance_pb2.ReceiverMessage(pass_taken=instance_pb2.PassTaken(**about))


def receiver_message_from_pb(message: instance_pb2.ReceiverMessage) -> ReceiverMessage | None:
    match message.WhichOneof("message"):
        case "reserved":
            reserved = message.reserved
            return Reserved(
                **about_from_pb(reserved),
                reservation=reserved.reservation,
                num_cached_blocks=reserved.num_cached_blocks,
            )
        case "refused":
            return Refused(**about_from_pb(message.refused), reason=message.refused.reason)
        case "pass_taken":
            return PassTaken(**about_from_pb(message.pass_taken))
        case _:
            return None
