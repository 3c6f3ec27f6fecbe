"""Whatever those may say who know the secret: the instance lives, and serves those who make sense."""

import asyncio
import math
from typing import Any

import grpc
import pytest
from google.protobuf.descriptor import FieldDescriptor
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cluster.pb import instance_pb2 as pb
from cluster.secret import Kind
from tests.unit.instance.served import (
    FRONT,
    PATIENCE_S,
    SECRET,
    Speaker,
    drops,
    front_hello,
    front_of,
    greet,
    served,
    serves,
    source_of,
)

pytestmark = pytest.mark.unit

MOSTLY = 30  # sensible fields for each wild one
# What a field may hold when it makes sense, by its name; and what it may hold by its type.
SENSIBLE: dict[str, list[Any]] = {
    "request_id": ["r", "s"],
    "front": [FRONT],
    "term": [1],
    "n": [1, 2, 3],
    "instance": ["me", "other"],
    "incarnation": [1],
    "address": ["127.0.0.1:1"],
    "link_address": ["127.0.0.1:1"],
    "prompt_token_ids": [1, 2, 3],
    "output_token_ids": [1, 2, 3],
    "temperature": [0.0, 1.0],
    "top_p": [1.0],
    "top_k": [0, 5],
    "max_tokens": [1, 4, 2**31 - 1],
    "logprobs": [0, 2],
    "age_s": [0.0, 1.0],
    "time_left_s": [5.0, 0.01],
    "priority": [0, 1],
    "num_tokens": [0, 1, 3, 9, 200],
    "lease_s": [5.0, 0.05],
    "block_hashes": [b"a" * 16, b"b" * 16],
    "reservation": [1, 2, 3],
    "num_blocks": [0, 1, 2],
    "num_computed_tokens": [0, 1, 2, 4, 8],
    "num_reported_tokens": [0],
    "num_cached_tokens": [0, 1],
    "seed": [0, 2**64 - 1],
    "next_index": [0, 1, 3],
    "role": ["prefill", "decode", "mixed"],
}
WILD: dict[int, list[Any]] = {
    FieldDescriptor.CPPTYPE_INT32: [0, -1, 7, 2**31 - 1, -(2**31)],
    FieldDescriptor.CPPTYPE_UINT32: [0, 49, 50, 2**32 - 1],
    FieldDescriptor.CPPTYPE_UINT64: [0, 5, 2**64 - 1],
    FieldDescriptor.CPPTYPE_DOUBLE: [0.0, -1.0, math.nan, math.inf, 1e300],
    FieldDescriptor.CPPTYPE_FLOAT: [0.0, -1.0, math.nan, math.inf, 1e-40],
    FieldDescriptor.CPPTYPE_BOOL: [False, True],
    FieldDescriptor.CPPTYPE_ENUM: [0, 1, 99],
    FieldDescriptor.CPPTYPE_STRING: ["", "x", "router/2", "\0:0"],
}


def values(field: Any) -> st.SearchStrategy[Any]:
    if field.message_type is not None:
        return messages(field.message_type._concrete_class)
    wild = [b"", b"x"] if field.type == FieldDescriptor.TYPE_BYTES else WILD[field.cpp_type]
    sensible = SENSIBLE.get(field.name, wild)
    many = sensible * (MOSTLY * len(wild) // len(sensible))
    return st.sampled_from([*many, *wild, *many])  # at neither end, which hypothesis likes best


@st.composite
def messages(draw: st.DrawFn, kind: Any) -> Any:
    """Any message of that kind; seldom without a field, and with one of those that exclude each other."""
    message = kind()
    fields = [field for field in kind.DESCRIPTOR.fields if not is_choice(field)]
    if choices := [field for field in kind.DESCRIPTOR.fields if is_choice(field)]:
        telling = [field for field in choices if field.name not in ("hello", "proof")]
        fields.append(draw(st.sampled_from([*telling * 4, *choices])))
    for field in fields:
        if field.is_repeated:
            max_size = 6 if field.message_type is None else draw(st.sampled_from([0] * MOSTLY + [2]))
            getattr(message, field.name).extend(draw(st.lists(values(field), max_size=max_size)))
        elif draw(st.integers(-MOSTLY, MOSTLY)) != 7:  # seldom left out
            value = draw(values(field))
            if field.message_type is None:
                setattr(message, field.name, value)
            else:
                getattr(message, field.name).CopyFrom(value)
    return message


def is_choice(field: Any) -> bool:
    """`optional` is a choice of one, in the eyes of protobuf."""
    return field.containing_oneof is not None and len(field.containing_oneof.fields) > 1


SETTINGS = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])


async def survives(front: Speaker, failed: asyncio.Event) -> bool:
    serving, failing = asyncio.create_task(serves(front)), asyncio.create_task(failed.wait())
    done, waiting = await asyncio.wait({serving, failing}, return_when=asyncio.FIRST_COMPLETED)
    for task in waiting:
        task.cancel()
    return serving in done and serving.result()


@SETTINGS
@given(said=st.lists(messages(pb.FrontMessage), max_size=12))
async def test_nothing_that_a_front_says_ends_an_instance(said: list[pb.FrontMessage]) -> None:
    async with served() as instance, front_of(instance) as front:
        front.say(*said)
        assert await survives(front, instance.failed)


@SETTINGS
@given(said=st.lists(messages(pb.SourceMessage), max_size=12))
async def test_nothing_that_a_source_says_ends_an_instance(said: list[pb.SourceMessage]) -> None:
    async with served() as instance, front_of(instance) as front, source_of(instance) as source:
        source.say(*said)
        reserve = pb.Reserve(request_id="last", epoch=pb.Epoch(term=1, n=1), num_tokens=10**6, lease_s=5.0)
        source.say(pb.SourceMessage(reserve=reserve))
        await source.hear(lambda message: message.refused.request_id == "last")  # all before it was heard
        assert await survives(front, instance.failed)


async def test_malformed_messages_are_counted_and_the_stream_goes_on() -> None:
    about = {"request_id": "r", "epoch": {"term": 1, "n": 1}}
    async with served() as instance, front_of(instance) as front, source_of(instance) as source:
        front.say(pb.FrontMessage(), pb.FrontMessage(want_tokens={**about, "next_index": -1}))
        source.say(pb.SourceMessage(reserve={**about, "num_tokens": -5, "lease_s": 5.0}))
        assert await serves(front)
        assert await drops(front, 0, 3)


async def test_bytes_that_are_no_message_end_their_stream_only() -> None:
    async with served() as instance:
        async with grpc.aio.insecure_channel(instance.info.address) as channel:
            method = channel.stream_stream(
                "/baton.v1.Instance/Serve",
                request_serializer=lambda said: said if isinstance(said, bytes) else said.SerializeToString(),
                response_deserializer=pb.InstanceMessage.FromString,
            )
            speaker = await greet(method, pb.FrontMessage, Kind.SERVE, front_hello(instance), SECRET)
            speaker.say(b"\xff\xff\xff")
            async with asyncio.timeout(PATIENCE_S):
                async for _ in speaker.messages:
                    pass
        async with front_of(instance) as front:
            assert await serves(front)
            assert await drops(front, 0, 1)
