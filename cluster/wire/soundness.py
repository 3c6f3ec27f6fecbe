"""Whether a message that was understood makes sense: what comes through here cannot bring an instance down.

Not whether it is true or comes in time: that is what epochs, reservations and the ledger are for.
"""

import math

from cluster.engine.block_hash import HASH_BYTES
from cluster.links.link_end import rank_addresses
from cluster.messages import (
    Cancel,
    Dispatch,
    FrontMessage,
    Grant,
    HandOver,
    Pass,
    PassTaken,
    Probe,
    ReceiverMessage,
    Refused,
    Renew,
    Reserve,
    Reserved,
    SequenceState,
    SetRole,
    SourceMessage,
    WantTokens,
)
from cluster.pb import instance_pb2
from cluster.wire.front_messages import front_message_from_pb
from cluster.wire.peer_messages import receiver_message_from_pb, source_message_from_pb

# Longer than any that makes sense; a lease or deadline of 1e300 s is a mistake.
_MAX_DURATION_S = 1e9
# A probe keeps a link busy; more than this is no measurement.
_MAX_PROBE_S = 60.0


class Malformed(ValueError):
    """Nothing may be done about this message but to count it."""


def read_front_message(
    message: instance_pb2.FrontMessage, now_s: float, *, front: str, vocab_size: int
) -> FrontMessage | None:
    """None for what only keeps the stream alive. Raises ValueError."""
    if message.WhichOneof("message") == "heartbeat":
        return None
    said = front_message_from_pb(message, now_s)
    if said is None:
        raise Malformed(f"a {message.WhichOneof('message')} within the stream")
    match said:
        case SetRole():
            return said
        case Probe():
            _check_probe(said)
            return said
        case Dispatch():
            _check_state(said.state, now_s, vocab_size)
            _require(said.state.front == front, "it is for another front")
            if said.grant is not None:
                _check_grant(said.grant)
        case HandOver():
            _check_grant(said.grant)
        case WantTokens():
            _require(said.next_index >= 0, f"next_index is {said.next_index}")
    _require(bool(_request_id(said)), "it is about no request")
    return said


def read_source_message(message: instance_pb2.SourceMessage, now_s: float, *, vocab_size: int) -> SourceMessage:
    """Raises ValueError."""
    said = source_message_from_pb(message, now_s)
    if said is None:
        raise Malformed(f"a {message.WhichOneof('message')} within the stream")
    match said:
        case Renew():
            return said
        case Reserve():
            _check_reserve(said)
        case Pass():
            _check_state(said.state, now_s, vocab_size)
            _require(said.state.request_id == said.request_id, "the state is that of another request")
            _check_counts(said.num_blocks, said.num_computed_tokens)
            num_output_tokens = len(said.state.output_token_ids)
            _require(0 <= said.num_reported_tokens <= num_output_tokens, "num_reported_tokens is not within the output")
        case Cancel():
            pass
    _require(bool(said.request_id), "it is about no request")
    return said


def read_receiver_message(message: instance_pb2.ReceiverMessage) -> ReceiverMessage:
    """Raises ValueError."""
    said = receiver_message_from_pb(message)
    match said:
        case None:
            raise Malformed(f"a {message.WhichOneof('message')} within the stream")
        case Reserved():
            _check_counts(said.num_cached_blocks)
        case Refused() | PassTaken():
            pass
    _require(bool(said.request_id), "it is about no request")
    return said


def _request_id(said: FrontMessage) -> str:
    assert not isinstance(said, SetRole | Probe)
    return said.state.request_id if isinstance(said, Dispatch) else said.request_id


def _check_reserve(reserve: Reserve) -> None:
    _check_counts(reserve.num_tokens)
    _require(0 < reserve.lease_s < _MAX_DURATION_S, f"lease_s is {reserve.lease_s}")
    _require(len(reserve.block_hashes) <= reserve.num_tokens, "more block hashes than tokens")
    _require(all(len(each) == HASH_BYTES for each in reserve.block_hashes), f"a hash has {HASH_BYTES} bytes")


def _check_state(state: SequenceState, now_s: float, vocab_size: int) -> None:
    for token_ids in (state.prompt_token_ids, state.output_token_ids):
        _require(max(token_ids, default=0) < vocab_size, f"a token id that is not below {vocab_size}")
    _require(bool(state.front), "it is for no front")
    _require(abs(now_s - state.arrival_time_s) < _MAX_DURATION_S, "no such age")
    if state.deadline_s is not None:
        _require(abs(state.deadline_s - now_s) < _MAX_DURATION_S, "no such deadline")
    _check_counts(state.num_cached_tokens)
    _require(len(state.logprobs) in (0, len(state.output_token_ids)), "not one logprob for each output token")
    _check_sampling(state, vocab_size)


def _check_sampling(state: SequenceState, vocab_size: int) -> None:
    params = state.sampling_params
    _require(0.0 <= params.temperature < math.inf, f"temperature is {params.temperature}")
    _require(0.0 < params.top_p <= 1.0, f"top_p is {params.top_p}")
    _require(params.top_k >= 0, f"top_k is {params.top_k}")
    _require(params.max_tokens >= 1, f"max_tokens is {params.max_tokens}")
    _require(params.logprobs is None or 0 <= params.logprobs <= vocab_size, f"logprobs is {params.logprobs}")


def _check_grant(grant: Grant) -> None:
    _require(bool(grant.receiver.instance), "a grant for nobody")
    for address in (grant.address, *rank_addresses(grant.link_address)):
        _require(_is_address(address), "a grant without an address")


def _check_probe(probe: Probe) -> None:
    _require(bool(probe.target.instance), "a probe of the link to nobody")
    _require(all(map(_is_address, rank_addresses(probe.link_address))), "a probe without an address")
    _require(0.0 < probe.budget_s <= _MAX_PROBE_S, f"budget_s is {probe.budget_s}")


def _is_address(address: str) -> bool:
    host, _, port = address.rpartition(":")
    return bool(host) and host.isprintable() and port.isdecimal()


def _check_counts(*counts: int) -> None:
    _require(min(counts) >= 0, "a count below zero")


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise Malformed(reason)
