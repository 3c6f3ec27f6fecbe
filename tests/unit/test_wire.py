"""What is said arrives as it was meant: every message, over the wire and back."""

from dataclasses import replace
from typing import Any

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason, TokenLogprobs
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    Cancel,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    FrontMessage,
    Grant,
    GrantRefused,
    HandOver,
    Held,
    Holder,
    Holdings,
    InstanceMessage,
    Pass,
    PassedOn,
    PassTaken,
    Probe,
    Probed,
    ReceiverMessage,
    Refused,
    Renew,
    Reserve,
    Reserved,
    SequenceState,
    SetRole,
    SourceMessage,
    StepUpdate,
    Stop,
    TokenUpdate,
    Transfers,
    TransferSample,
    WantTokens,
)
from cluster.pb import instance_pb2
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import HandoverSnapshot, InstanceSnapshot, LinkSnapshot
from cluster.wire.front_messages import (
    front_message_from_pb,
    front_message_to_pb,
    instance_message_from_pb,
    instance_message_to_pb,
)
from cluster.wire.peer_messages import (
    receiver_message_from_pb,
    receiver_message_to_pb,
    source_message_from_pb,
    source_message_to_pb,
)
from cluster.wire.snapshots import snapshot_from_pb, snapshot_to_pb

pytestmark = pytest.mark.unit

EPOCH = Epoch(3, 9)
ABOUT = {"request_id": "r", "epoch": EPOCH}
LOGPROBS = (TokenLogprobs(-0.5, ((7, -0.5), (8, -1.0))),)
STATE = SequenceState(
    request_id="r",
    front="router/3",
    prompt_token_ids=(1, 2, 3),
    output_token_ids=(7,),
    sampling_params=SamplingParams(
        temperature=0.5, top_p=0.25, top_k=3, seed=2**63, max_tokens=9, stop_token_ids=frozenset({0, 5}), logprobs=0
    ),
    arrival_time_s=90.0,
    deadline_s=130.0,
    priority=-2,
    logprobs=LOGPROBS,
    num_cached_tokens=2,
)
GRANT = Grant(epoch=EPOCH, receiver=Holder("decode-0", 2**60), address="a:1", link_address="a:2")
UPDATE = TokenUpdate(
    **ABOUT,
    start_index=4,
    token_ids=(7, 8),
    logprobs=LOGPROBS * 2,
    finish_reason=FinishReason.LENGTH,
    num_cached_tokens=1,
)
SAMPLE = TransferSample(target=Holder("decode-0", 2**60), transport="tcp", num_bytes=2**40, seconds=0.25, ended_s=99.5)


@pytest.mark.parametrize(
    "message",
    [
        Dispatch(state=STATE, epoch=EPOCH, grant=GRANT, number=4),
        Dispatch(state=replace(STATE, deadline_s=None), epoch=EPOCH),
        Stop(**ABOUT),
        CloseGrant(**ABOUT),
        AckActivated(**ABOUT),
        AckFinished(**ABOUT),
        WantTokens(**ABOUT, next_index=3),
        HandOver(**ABOUT, grant=GRANT),
        SetRole(role=InstanceRole.MIXED),
        Probe(number=7, target=GRANT.receiver, link_address="a:2", budget_s=0.5),
    ],
)
def test_a_front_is_understood(message: FrontMessage) -> None:
    sent = front_message_to_pb(message, 100.0).SerializeToString()
    assert front_message_from_pb(instance_pb2.FrontMessage.FromString(sent), 100.0) == message


@pytest.mark.parametrize(
    "message",
    [
        StepUpdate(updates=(UPDATE, replace(UPDATE, finish_reason=None)), num_waiting_tokens=5, num_dispatches_seen=6),
        Activated(**ABOUT),
        GrantRefused(**ABOUT, reason="full"),
        GrantRefused(**ABOUT, reason="cut off", unreachable=True),
        DispatchRefused(**ABOUT, reason="too long"),
        DispatchRefused(**ABOUT, reason="out of memory", may_run_elsewhere=True),
        PassedOn(**ABOUT),
        Transfers(samples=(SAMPLE, replace(SAMPLE, ended_s=0.0))),
        Probed(number=7, target=SAMPLE.target, transport="tcp", samples=(SAMPLE,), num_connections=4),
        Probed(number=8, target=SAMPLE.target, error="unreachable"),
        Holdings(held=()),
        Holdings(
            held=(
                Held(state=STATE, epoch=EPOCH, outranks=Epoch(3, 10), grant_epoch=Epoch(3, 11)),
                Held(state=STATE, epoch=EPOCH, outranks=EPOCH, finish_reason=FinishReason.STOP),
            )
        ),
    ],
)
def test_an_instance_is_understood(message: InstanceMessage) -> None:
    sent = instance_message_to_pb(message, 100.0).SerializeToString()
    assert instance_message_from_pb(instance_pb2.InstanceMessage.FromString(sent), 100.0) == message


@pytest.mark.parametrize(
    "nonsense",
    [
        {"num_bytes": 0},
        {"transport": ""},
        {"target": {}},
        {"seconds": 0.0},
        {"seconds": float("nan")},
        {"seconds": float("inf")},
        {"ended_ago_s": -1.0},
        {"ended_ago_s": float("nan")},
        {"ended_ago_s": 1e300},
    ],
)
def test_a_sample_that_makes_no_sense_is_left_out(nonsense: dict[str, Any]) -> None:
    sound = {"target": {"instance": "d", "incarnation": 1}, "transport": "tcp", "num_bytes": 1, "seconds": 0.5}
    sent = instance_pb2.Transfers(samples=[{**sound, **nonsense}, sound])
    heard = instance_message_from_pb(instance_pb2.InstanceMessage(transfers=sent), 100.0)
    assert heard == Transfers(
        samples=(TransferSample(target=Holder("d", 1), transport="tcp", num_bytes=1, seconds=0.5, ended_s=100.0),)
    )


@pytest.mark.parametrize(
    "message",
    [
        Reserve(**ABOUT, num_tokens=41, block_hashes=(b"a" * 16, b"b" * 16), lease_s=5.0),
        Reserve(**ABOUT, num_tokens=0, lease_s=5.0, may_wait=False),
        Pass(**ABOUT, reservation=3, num_blocks=3, num_computed_tokens=40, num_reported_tokens=1, state=STATE),
        Cancel(**ABOUT),
        Renew(),
    ],
)
def test_the_source_of_a_handover_is_understood(message: SourceMessage) -> None:
    sent = source_message_to_pb(message, 100.0).SerializeToString()
    assert source_message_from_pb(instance_pb2.SourceMessage.FromString(sent), 100.0) == message


@pytest.mark.parametrize(
    "message",
    [Reserved(**ABOUT, reservation=3, num_cached_blocks=2), Refused(**ABOUT, reason="full"), PassTaken(**ABOUT)],
)
def test_the_receiver_of_a_handover_is_understood(message: ReceiverMessage) -> None:
    sent = receiver_message_to_pb(message).SerializeToString()
    assert receiver_message_from_pb(instance_pb2.ReceiverMessage.FromString(sent)) == message


def test_a_deadline_keeps_its_distance_between_clocks_that_differ() -> None:
    sent = source_message_to_pb(Pass(**ABOUT, reservation=3, num_blocks=3, num_computed_tokens=40, state=STATE), 100.0)
    arrived = source_message_from_pb(sent, 5_000.0)
    assert isinstance(arrived, Pass)
    assert (arrived.state.deadline_s, arrived.state.arrival_time_s) == (5_030.0, 4_990.0)


def test_a_snapshot_is_understood() -> None:
    snapshot = InstanceSnapshot(
        instance=Holder("decode-0", 2**60),
        role=InstanceRole.DECODE,
        status=InstanceStatus.RUNNING,
        num_waiting=1,
        num_running=2,
        num_sequences=3,
        num_blocks=100,
        num_free_blocks=90,
        num_reserved_blocks=4,
        num_leaked_blocks=5,
        num_waiting_tokens=6,
        num_dispatches_seen=7,
        num_fenced=8,
        num_bad_blocks=9,
        num_unauthenticated=10,
        num_malformed=11,
        num_checksum_failures=12,
        handovers=(
            HandoverSnapshot(
                request_id="r",
                source="a",
                target="b",
                state="TRANSFERRING",
                stage=2,
                num_blocks_sent=3,
                num_blocks=4,
                num_bytes=5,
            ),
        ),
        links=(
            LinkSnapshot(
                source="a", target="b", transport="tcp", num_transfers=1, num_bytes=2, alpha_s=0.5, num_connections=4
            ),
        ),
    )
    assert snapshot_from_pb(snapshot_to_pb(snapshot)) == snapshot
