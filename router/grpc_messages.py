"""proto/baton.proto to the front's own values, and back."""

from collections.abc import Callable
from typing import Any, TypeVar

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import DecodeError, Message
from google.protobuf.unknown_fields import UnknownFieldSet

from cluster.pb import baton_pb2
from cluster.wire.values import finish_reason_to_pb, logprobs_to_pb
from router.errors import InvalidRequest
from router.model_info import ModelInfo
from router.output_text import GenerationDelta
from router.resume import NUM_HASH_BYTES, ResumePoint
from router.validation import GenerateRequest, RequestedSampling

MessageT = TypeVar("MessageT", bound=Message)


def parser(kind: type[MessageT]) -> Callable[[bytes], MessageT | InvalidRequest]:
    """A deserializer; what it cannot read comes back as the error that says which field is at fault."""

    def parse(data: bytes) -> MessageT | InvalidRequest:
        try:
            return kind.FromString(data)
        except DecodeError:
            field = _field_not_utf8(data, kind.DESCRIPTOR)
            said = "is not valid UTF-8" if field else "cannot be parsed"
            return InvalidRequest(field or "request", said)

    return parse


def _field_not_utf8(data: bytes, message: Any) -> str | None:
    """Path of the first string in the encoded message that is not UTF-8."""
    try:
        unparsed: Any = UnknownFieldSet(
            baton_pb2.StatusRequest.FromString(data)
        )  # it has no fields: all are unknown to it
    except DecodeError:
        return None
    for part in unparsed:
        field = message.fields_by_number.get(part.field_number)
        if field is None or not isinstance(part.data, bytes):
            continue
        if field.type == FieldDescriptor.TYPE_MESSAGE and (inner := _field_not_utf8(part.data, field.message_type)):
            return f"{field.name}.{inner}"
        if field.type == FieldDescriptor.TYPE_STRING and not _is_utf8(part.data):
            return str(field.name)
    return None


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def to_request(message: baton_pb2.GenerateRequest, time_remaining_s: float | None) -> GenerateRequest:
    """`time_remaining_s` is the call's own deadline; the earlier of it and the message's counts."""
    timeouts_s = [time_remaining_s, message.timeout_s if message.HasField("timeout_s") else None]
    prompt = tuple(message.token_ids.ids) if message.WhichOneof("prompt") == "token_ids" else message.text
    return GenerateRequest(
        prompt=prompt,
        request_id=message.request_id,
        sampling=_sampling(message.sampling_params),
        priority=message.priority,
        resumable=message.resumable,
        timeout_s=min((timeout_s for timeout_s in timeouts_s if timeout_s is not None), default=None),
    )


def to_resume_point(message: baton_pb2.AttachRequest) -> ResumePoint:
    """Who has no token yet may leave the hash out. Raises InvalidRequest."""
    if not message.request_id:
        raise InvalidRequest("request_id", "must not be empty")
    if message.next_index < 0:
        raise InvalidRequest("next_index", f"must not be negative, not {message.next_index}")
    if message.next_index == 0 and not message.tokens_hash:
        return ResumePoint.after(message.request_id, ())
    if len(message.tokens_hash) != NUM_HASH_BYTES:
        raise InvalidRequest("tokens_hash", f"must have {NUM_HASH_BYTES} bytes, not {len(message.tokens_hash)}")
    return ResumePoint(message.request_id, message.next_index, message.tokens_hash)


def _sampling(params: baton_pb2.SamplingParams) -> RequestedSampling:
    optional = ("temperature", "top_p", "top_k", "seed", "max_tokens", "logprobs")
    return RequestedSampling(
        **{name: getattr(params, name) for name in optional if params.HasField(name)},
        stop=tuple(params.stop),
        stop_token_ids=tuple(params.stop_token_ids),
        ignore_eos=params.ignore_eos,
    )


def field_path(field: str) -> str:
    """Where in a GenerateRequest the field of a refusal is."""
    return f"sampling_params.{field}" if field in baton_pb2.SamplingParams.DESCRIPTOR.fields_by_name else field


def from_delta(delta: GenerationDelta) -> baton_pb2.GenerateDelta:
    message = baton_pb2.GenerateDelta(
        request_id=delta.request_id,
        index=delta.index,
        token_ids=delta.token_ids,
        text=delta.text,
        logprobs=logprobs_to_pb(delta.logprobs),
        finish_reason=finish_reason_to_pb(delta.finish_reason),
    )
    if delta.usage is not None:
        message.usage.num_prompt_tokens = delta.usage.num_prompt_tokens
        message.usage.num_output_tokens = delta.usage.num_output_tokens
        message.usage.num_cached_tokens = delta.usage.num_cached_tokens
    return message


def from_model_info(info: ModelInfo) -> baton_pb2.ModelInfo:
    return baton_pb2.ModelInfo(
        model=info.model,
        architecture=info.architecture,
        max_model_len=info.max_model_len,
        vocab_size=info.vocab_size,
        eos_token_ids=sorted(info.eos_token_ids),
    )
