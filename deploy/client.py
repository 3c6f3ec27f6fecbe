"""Asks a running deployment over gRPC, for commands; their errors become one line."""

from collections.abc import Iterator
from contextlib import contextmanager

import grpc

from cluster.pb import baton_pb2, baton_pb2_grpc
from deploy.errors import DeployError
from deploy.records import find_record

DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_HTTP_ADDRESS = "127.0.0.1:8000"
_STATUS_TIMEOUT_S = 5.0


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
    with grpc.insecure_channel(address) as channel:
        try:
            yield baton_pb2_grpc.BatonStub(channel)  # type: ignore[no-untyped-call]
        except grpc.RpcError as error:
            raise DeployError(_explain(error, address)) from error


def fetch_status(address: str) -> baton_pb2.ClusterStatus:
    with connect(address) as stub:
        status: baton_pb2.ClusterStatus = stub.Status(baton_pb2.StatusRequest(), timeout=_STATUS_TIMEOUT_S)
        return status


def _explain(error: grpc.RpcError, address: str) -> str:
    code, details = error.code(), error.details() or ""
    if code is grpc.StatusCode.UNAVAILABLE and "connect" in details:
        return f"no deployment answers at {address}; `baton up` starts one"
    if code is grpc.StatusCode.FAILED_PRECONDITION and details:
        return details  # a refusal: the reason is all there is to say
    return f"{code.name}: {details}".splitlines()[0]
