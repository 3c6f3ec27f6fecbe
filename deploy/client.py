"""Asks a running deployment over gRPC, for commands; their errors become one line."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event, Timer
from typing import Any

import grpc

from cluster.pb import baton_pb2, baton_pb2_grpc
from cluster.wire.channel import MAX_MESSAGE_BYTES
from deploy.errors import DeployError
from deploy.records import find_record
from router.timeouts import CALL_TIMEOUT_S, SILENCE_S

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_HTTP_ADDRESS = "127.0.0.1:8000"
_CHANNEL_OPTIONS = (("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),)


def find_address(name: str | None, address: str | None) -> str:
    """`address` if it is given; else that of the deployment running here by that name; else the default one."""
    if address:
        return address
    record = find_record(name)
    if record is None and name is not None:
        raise DeployError(f"no deployment named {name} runs here; --address HOST:PORT reaches one elsewhere")
    return record.grpc_address if record else DEFAULT_ADDRESS


@contextmanager
def connect(address: str) -> Iterator[baton_pb2_grpc.BatonStub]:
    """DeployError for whatever a call ends in."""
    with grpc.insecure_channel(address, options=_CHANNEL_OPTIONS) as channel:
        try:
            yield baton_pb2_grpc.BatonStub(channel)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise DeployError(_explain(error, address)) from error


def fetch_status(address: str) -> baton_pb2.ClusterStatus:
    with connect(address) as stub:
        status: baton_pb2.ClusterStatus = stub.Status(baton_pb2.StatusRequest(), timeout=CALL_TIMEOUT_S)
        return status


def until_silent(call: Any) -> Iterator[Any]:
    """All that a stream says; DeployError when it says nothing for `SILENCE_S`."""
    is_silent = Event()

    def give_up() -> None:
        is_silent.set()
        call.cancel()

    try:
        while True:
            watch = Timer(SILENCE_S, give_up)
            watch.daemon = True
            watch.start()
            try:
                message = next(call, None)
            finally:
                watch.cancel()
            if message is None:
                return
            yield message
    except grpc.RpcError:
        if is_silent.is_set():
            raise DeployError(f"the deployment has said nothing for {SILENCE_S:.0f} s") from None
        raise


def _explain(error: grpc.RpcError, address: str) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details:
        return f"no deployment answers at {address}; `baton up` starts one"
    if code is grpc.StatusCode.FAILED_PRECONDITION and details:
        return details  # a refusal: the reason is all there is to say
    return f"{code.name}: {details}".splitlines()[0]
