"""What messages are made of. A time on the wire is a duration, since clocks differ between hosts."""

from collections.abc import Iterable
from typing import Any, Protocol

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.messages import Epoch, Grant, Holder, SequenceState
from cluster.pb import baton_pb2, instance_pb2

_FINISH = {
    FinishReason.STOP: baton_pb2.FINISH_REASON_STOP,
    FinishReason.LENGTH: baton_pb2.FINISH_REASON_LENGTH,
    FinishReason.ABORT: baton_pb2.FINISH_REASON_ABORT,
    FinishReason.ERROR: baton_pb2.FINISH_REASON_ERROR,
}
_FINISH_BACK = {value: key for key, value in _FINISH.items()}


def finish_reason_to_pb(reason: FinishReason | None) -> baton_pb2.FinishReason:
    return baton_pb2.FINISH_REASON_UNSPECIFIED if reason is None else _FINISH[reason]


def finish_reason_from_pb(reason: baton_pb2.FinishReason) -> FinishReason | None:
    return _FINISH_BACK.get(reason)


def epoch_to_pb(epoch: Epoch) -> instance_pb2.Epoch:
    return instance_pb2.Epoch(term=epoch.term, n=epoch.n)


def epoch_from_pb(epoch: instance_pb2.Epoch) -> Epoch:
    return Epoch(epoch.term, epoch.n)


def holder_to_pb(holder: Holder) -> instance_pb2.Holder:
    return instance_pb2.Holder(instance=holder.instance, incarnation=holder.incarnation)


def holder_from_pb(holder: instance_pb2.Holder) -> Holder:
    return Holder(holder.instance, holder.incarnation)


def grant_to_pb(grant: Grant) -> instance_pb2.Grant:
    return instance_pb2.Grant(
        epoch=epoch_to_pb(grant.epoch),
        receiver=holder_to_pb(grant.receiver),
        address=grant.address,
        link_address=grant.link_address,
    )


def grant_from_pb(grant: instance_pb2.Grant) -> Grant:
    return Grant(
        epoch=epoch_from_pb(grant.epoch),
        receiver=holder_from_pb(grant.receiver),
        address=grant.address,
        link_address=grant.link_address,
    )


def logprobs_to_pb(logprobs: Iterable[TokenLogprobs]) -> list[baton_pb2.Logprobs]:
    return [
        baton_pb2.Logprobs(
            logprob=entry.logprob,
            top=[baton_pb2.TokenLogprob(token_id=token_id, logprob=logprob) for token_id, logprob in entry.top],
        )
        for entry in logprobs
    ]


def logprobs_from_pb(logprobs: Iterable[baton_pb2.Logprobs]) -> tuple[TokenLogprobs, ...]:
    return tuple(
        TokenLogprobs(entry.logprob, tuple((top.token_id, top.logprob) for top in entry.top)) for entry in logprobs
    )


def _params_to_pb(params: SamplingParams) -> instance_pb2.EngineSamplingParams:
    return instance_pb2.EngineSamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        seed=params.seed,
        max_tokens=params.max_tokens,
        stop_token_ids=sorted(params.stop_token_ids),
        logprobs=params.logprobs,
    )


def _params_from_pb(params: instance_pb2.EngineSamplingParams) -> SamplingParams:
    return SamplingParams(
        temperature=params.temperature,
        top_p=params.top_p,
        top_k=params.top_k,
        seed=params.seed,
        max_tokens=params.max_tokens,
        stop_token_ids=frozenset(params.stop_token_ids),
        logprobs=params.logprobs if params.HasField("logprobs") else None,
    )


def state_to_pb(state: SequenceState, now_s: float) -> instance_pb2.SequenceState:
    return instance_pb2.SequenceState(
        request_id=state.request_id,
        front=state.front,
        prompt_token_ids=state.prompt_token_ids,
        output_token_ids=state.output_token_ids,
        sampling_params=_params_to_pb(state.sampling_params),
        age_s=now_s - state.arrival_time_s,
        time_left_s=None if state.deadline_s is None else state.deadline_s - now_s,
        priority=state.priority,
        logprobs=logprobs_to_pb(state.logprobs),
        num_cached_tokens=state.num_cached_tokens,
    )


def state_from_pb(state: instance_pb2.SequenceState, now_s: float) -> SequenceState:
    return SequenceState(
        request_id=state.request_id,
        front=state.front,
        prompt_token_ids=tuple(state.prompt_token_ids),
        output_token_ids=tuple(state.output_token_ids),
        sampling_params=_params_from_pb(state.sampling_params),
        arrival_time_s=now_s - state.age_s,
        deadline_s=now_s + state.time_left_s if state.HasField("time_left_s") else None,
        priority=state.priority,
        logprobs=logprobs_from_pb(state.logprobs),
        num_cached_tokens=state.num_cached_tokens,
    )


class _About(Protocol):
    @property
    def request_id(self) -> str: ...

    @property
    def epoch(self) -> Epoch: ...


def about_to_pb(message: "_About") -> dict[str, Any]:
    """The fields that every message about a request begins with."""
    return {"request_id": message.request_id, "epoch": epoch_to_pb(message.epoch)}


def about_from_pb(message: Any) -> dict[str, Any]:
    return {"request_id": message.request_id, "epoch": epoch_from_pb(message.epoch)}
