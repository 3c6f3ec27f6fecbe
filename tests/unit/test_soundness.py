"""Messages that can be read and make no sense: none gets through, and nothing that is sound is stopped."""

from typing import Any

import pytest

from cluster.messages import Cancel, Dispatch, Probe, Reserve, Stop
from cluster.pb import instance_pb2 as pb
from cluster.wire.soundness import read_front_message, read_receiver_message, read_source_message

pytestmark = pytest.mark.unit

NOW_S = 100.0
FRONT = "router/1"
EPOCH = {"term": 1, "n": 1}
ABOUT = {"request_id": "r", "epoch": EPOCH}
GRANT = {
    "epoch": EPOCH,
    "receiver": {"instance": "decode-0", "incarnation": 1},
    "address": "10.0.0.1:5000",
    "link_address": "node.cluster:5001",
}
SAMPLING = {"temperature": 1.0, "top_p": 1.0, "max_tokens": 8}
STATE = {"request_id": "r", "front": FRONT, "prompt_token_ids": [1, 2, 3], "sampling_params": SAMPLING}
RESERVE = {**ABOUT, "num_tokens": 3, "lease_s": 5.0}
PASS = {**ABOUT, "reservation": 1, "num_blocks": 1, "num_computed_tokens": 2, "state": STATE}

PROBE = {"number": 1, "target": GRANT["receiver"], "link_address": "node.cluster:5001", "budget_s": 0.5}


def read_front(**message: Any) -> Any:
    return read_front_message(pb.FrontMessage(**message), NOW_S, front=FRONT, vocab_size=50)


def read_source(**message: Any) -> Any:
    return read_source_message(pb.SourceMessage(**message), NOW_S, vocab_size=50)


def test_what_is_sound_comes_through() -> None:
    assert isinstance(read_front(dispatch={"state": STATE, "epoch": EPOCH, "grant": GRANT}), Dispatch)
    assert isinstance(read_front(stop=ABOUT), Stop)
    assert isinstance(read_front(probe=PROBE), Probe)
    assert isinstance(read_source(reserve=RESERVE), Reserve)
    assert isinstance(read_source(cancel=ABOUT), Cancel)
    assert read_source(**{"pass": PASS}).state.request_id == "r"
    assert read_receiver_message(pb.ReceiverMessage(reserved={**ABOUT, "num_cached_blocks": 2}))


def test_a_heartbeat_is_nothing_to_act_on() -> None:
    assert read_front(heartbeat={}) is None


@pytest.mark.parametrize(
    "state",
    [
        {"front": "router/2"},
        {"front": ""},
        {"request_id": ""},
        {"prompt_token_ids": [50]},
        {"output_token_ids": [2**32 - 1]},
        {"age_s": float("nan")},
        {"age_s": float("inf")},
        {"time_left_s": float("nan")},
        {"time_left_s": -1e300},
        {"num_cached_tokens": -1},
        {"output_token_ids": [1, 2], "logprobs": [{"logprob": 0.0}]},
        {"sampling_params": {**SAMPLING, "temperature": float("nan")}},
        {"sampling_params": {**SAMPLING, "temperature": -1.0}},
        {"sampling_params": {**SAMPLING, "top_p": 0.0}},
        {"sampling_params": {**SAMPLING, "top_k": -1}},
        {"sampling_params": {**SAMPLING, "max_tokens": 0}},
        {"sampling_params": {**SAMPLING, "logprobs": -1}},
        {"sampling_params": {**SAMPLING, "logprobs": 51}},
        {"sampling_params": {}},
    ],
)
def test_a_request_that_no_engine_can_run_is_malformed(state: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_front(dispatch={"state": {**STATE, **state}, "epoch": EPOCH})


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"hello": {"front": FRONT}},
        {"proof": {"proof": b"p"}},
        {"dispatch": {}},
        {"stop": {"epoch": EPOCH}},
        {"want_tokens": {**ABOUT, "next_index": -1}},
        {"set_role": {"role": "king"}},
        {"hand_over": ABOUT},
        {"hand_over": {**ABOUT, "grant": {**GRANT, "address": ""}}},
        {"hand_over": {**ABOUT, "grant": {**GRANT, "link_address": "decode-0"}}},
        {"hand_over": {**ABOUT, "grant": {**GRANT, "link_address": "a\0b:1"}}},
        {"probe": {**PROBE, "target": {}}},
        {"probe": {**PROBE, "link_address": "nowhere"}},
        {"probe": {**PROBE, "budget_s": 0.0}},
        {"probe": {**PROBE, "budget_s": float("nan")}},
        {"probe": {**PROBE, "budget_s": 1e9}},
    ],
)
def test_what_no_front_can_mean_is_malformed(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_front(**message)


@pytest.mark.parametrize(
    "message",
    [
        {},
        {"hello": {}},
        {"proof": {"proof": b"p"}},
        {"cancel": {"epoch": EPOCH}},
        {"reserve": {**RESERVE, "num_tokens": -1}},
        {"reserve": {**RESERVE, "lease_s": 0.0}},
        {"reserve": {**RESERVE, "lease_s": float("inf")}},
        {"reserve": {**RESERVE, "lease_s": float("nan")}},
        {"reserve": {**RESERVE, "block_hashes": [b"short"]}},
        {"reserve": {**RESERVE, "block_hashes": [bytes(16)] * 4}},
        {"pass": {**PASS, "state": {**STATE, "request_id": "another"}}},
        {"pass": {**PASS, "num_blocks": -1}},
        {"pass": {**PASS, "num_computed_tokens": -1}},
        {"pass": {**PASS, "num_reported_tokens": 1}},
        {"pass": {**PASS, "state": {**STATE, "prompt_token_ids": [50]}}},
    ],
)
def test_what_no_source_can_mean_is_malformed(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_source(**message)


@pytest.mark.parametrize(
    "message",
    [{}, {"challenge": {}}, {"refused": {"epoch": EPOCH}}, {"reserved": {**ABOUT, "num_cached_blocks": -1}}],
)
def test_what_no_receiver_can_mean_is_malformed(message: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        read_receiver_message(pb.ReceiverMessage(**message))
