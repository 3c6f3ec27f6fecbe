"""What a front and an instance say to each other."""

from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    FrontMessage,
    GrantRefused,
    HandOver,
    Held,
    Holdings,
    InstanceMessage,
    PassedOn,
    Probe,
    Probed,
    SetRole,
    StepUpdate,
    Stop,
    TokenUpdate,
    Transfers,
    WantTokens,
)
from cluster.pb import instance_pb2
from cluster.role import InstanceRole
from cluster.wire.link_messages import (
    probe_from_pb,
    probe_to_pb,
    probed_from_pb,
    probed_to_pb,
    transfers_from_pb,
    transfers_to_pb,
)
from cluster.wire.values import (
    about_from_pb,
    about_to_pb,
    epoch_from_pb,
    epoch_to_pb,
    finish_reason_from_pb,
    finish_reason_to_pb,
    grant_from_pb,
    grant_to_pb,
    logprobs_from_pb,
    logprobs_to_pb,
    state_from_pb,
    state_to_pb,
)


def front_message_to_pb(message: FrontMessage, now_s: float) -> instance_pb2.FrontMessage:
    if isinstance(message, Dispatch):
        dispatch = instance_pb2.Dispatch(
            state=state_to_pb(message.state, now_s),
            epoch=epoch_to_pb(message.epoch),
            grant=grant_to_pb(message.grant) if message.grant else None,
            number=message.number,
        )
        return instance_pb2.FrontMessage(dispatch=dispatch)
    if isinstance(message, SetRole):
        return instance_pb2.FrontMessage(set_role=instance_pb2.SetRole(role=message.role.value))
    if isinstance(message, Probe):
        return instance_pb2.FrontMessage(probe=probe_to_pb(message))
    about = about_to_pb(message)
    match message:
        case HandOver():
            hand_over = instance_pb2.HandOver(**about, grant=grant_to_pb(message.grant))
            return instance_pb2.FrontMessage(hand_over=hand_over)
        case Stop():
            return instance_pb2.FrontMessage(stop=instance_pb2.Stop(**about))
        case CloseGrant():
            return instance_pb2.FrontMessage(close_grant=instance_pb2.CloseGrant(**about))
        case AckActivated():
            return instance_pb2.FrontMessage(ack_activated=instance_pb2.AckActivated(**about))
        case AckFinished():
            return instance_pb2.FrontMessage(ack_finished=instance_pb2.AckFinished(**about))
        case WantTokens():
            want = instance_pb2.WantTokens(**about, next_index=message.next_index)
            return instance_pb2.FrontMessage(want_tokens=want)


def front_message_from_pb(message: instance_pb2.FrontMessage, now_s: float) -> FrontMessage | None:
    """None for what is said between the streams' ends only (hello, heartbeat)."""
    kind = message.WhichOneof("message")
    match kind:
        case "dispatch":
            dispatch = message.dispatch
            return Dispatch(
                state=state_from_pb(dispatch.state, now_s),
                epoch=epoch_from_pb(dispatch.epoch),
                grant=grant_from_pb(dispatch.grant) if dispatch.HasField("grant") else None,
                number=dispatch.number,
            )
        case "hand_over":
            return HandOver(**about_from_pb(message.hand_over), grant=grant_from_pb(message.hand_over.grant))
        case "set_role":
            return SetRole(role=InstanceRole(message.set_role.role))
        case "probe":
            return probe_from_pb(message.probe)
        case "stop":
            return Stop(**about_from_pb(message.stop))
        case "close_grant":
            return CloseGrant(**about_from_pb(message.close_grant))
        case "ack_activated":
            return AckActivated(**about_from_pb(message.ack_activated))
        case "ack_finished":
            return AckFinished(**about_from_pb(message.ack_finished))
        case "want_tokens":
            want = message.want_tokens
            return WantTokens(**about_from_pb(want), next_index=want.next_index)
        case _:
            return None


def _update_to_pb(update: TokenUpdate) -> instance_pb2.TokenUpdate:
    return instance_pb2.TokenUpdate(
        request_id=update.request_id,
        epoch=epoch_to_pb(update.epoch),
        start_index=update.start_index,
        token_ids=update.token_ids,
        logprobs=logprobs_to_pb(update.logprobs),
        finish_reason=finish_reason_to_pb(update.finish_reason),
        num_cached_tokens=update.num_cached_tokens,
    )


def _update_from_pb(update: instance_pb2.TokenUpdate) -> TokenUpdate:
    return TokenUpdate(
        **about_from_pb(update),
        start_index=update.start_index,
        token_ids=tuple(update.token_ids),
        logprobs=logprobs_from_pb(update.logprobs),
        finish_reason=finish_reason_from_pb(update.finish_reason),
        num_cached_tokens=update.num_cached_tokens,
    )


def _held_to_pb(held: Held, now_s: float) -> instance_pb2.Held:
    return instance_pb2.Held(
        state=state_to_pb(held.state, now_s),
        epoch=epoch_to_pb(held.epoch),
        outranks=epoch_to_pb(held.outranks),
        grant_epoch=epoch_to_pb(held.grant_epoch) if held.grant_epoch else None,
        finish_reason=finish_reason_to_pb(held.finish_reason),
    )


def _held_from_pb(held: instance_pb2.Held, now_s: float) -> Held:
    return Held(
        state=state_from_pb(held.state, now_s),
        epoch=epoch_from_pb(held.epoch),
        outranks=epoch_from_pb(held.outranks),
        grant_epoch=epoch_from_pb(held.grant_epoch) if held.HasField("grant_epoch") else None,
        finish_reason=finish_reason_from_pb(held.finish_reason),
    )


def instance_message_to_pb(message: InstanceMessage, now_s: float) -> instance_pb2.InstanceMessage:
    if isinstance(message, StepUpdate):
        step = instance_pb2.StepUpdate(
            updates=[_update_to_pb(update) for update in message.updates],
            num_waiting_tokens=message.num_waiting_tokens,
            num_dispatches_seen=message.num_dispatches_seen,
        )
        return instance_pb2.InstanceMessage(step=step)
    if isinstance(message, Holdings):
        holdings = instance_pb2.Holdings(held=[_held_to_pb(held, now_s) for held in message.held])
        return instance_pb2.InstanceMessage(holdings=holdings)
    if isinstance(message, Probed):
        return instance_pb2.InstanceMessage(probed=probed_to_pb(message, now_s))
    if isinstance(message, Transfers):
        return instance_pb2.InstanceMessage(transfers=transfers_to_pb(message, now_s))
    about = about_to_pb(message)
    match message:
        case Activated():
            return instance_pb2.InstanceMessage(activated=instance_pb2.Activated(**about))
        case GrantRefused():
            refused = instance_pb2.GrantRefused(**about, reason=message.reason, unreachable=message.unreachable)
            return instance_pb2.InstanceMessage(grant_refused=refused)
        case PassedOn():
            return instance_pb2.InstanceMessage(passed_on=instance_pb2.PassedOn(**about))
        case DispatchRefused():
            dispatch = instance_pb2.DispatchRefused(
                **about, reason=message.reason, may_run_elsewhere=message.may_run_elsewhere
            )
            return instance_pb2.InstanceMessage(dispatch_refused=dispatch)


def instance_message_from_pb(message: instance_pb2.InstanceMessage, now_s: float) -> InstanceMessage | None:
    """None for hello, heartbeat and snapshot, which are not about a request."""
    match message.WhichOneof("message"):
        case "step":
            step = message.step
            return StepUpdate(
                updates=tuple(_update_from_pb(update) for update in step.updates),
                num_waiting_tokens=step.num_waiting_tokens,
                num_dispatches_seen=step.num_dispatches_seen,
            )
        case "holdings":
            return Holdings(held=tuple(_held_from_pb(held, now_s) for held in message.holdings.held))
        case "probed":
            return probed_from_pb(message.probed, now_s)
        case "transfers":
            return transfers_from_pb(message.transfers, now_s)
        case "activated":
            return Activated(**about_from_pb(message.activated))
        case "passed_on":
            return PassedOn(**about_from_pb(message.passed_on))
        case "grant_refused":
            return GrantRefused(
                **about_from_pb(message.grant_refused),
                reason=message.grant_refused.reason,
                unreachable=message.grant_refused.unreachable,
            )
        case "dispatch_refused":
            dispatch = message.dispatch_refused
            return DispatchRefused(
                **about_from_pb(dispatch), reason=dispatch.reason, may_run_elsewhere=dispatch.may_run_elsewhere
            )
        case _:
            return None
