"""A running cluster and somebody who knows all about it but its secret; and where its ports are open."""

import asyncio
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import grpc
import pytest

from cluster.links.deadline import Deadline
from cluster.links.frame_socket import FrameSocket
from cluster.pb import baton_pb2, instance_pb2_grpc
from cluster.pb import instance_pb2 as pb
from cluster.pb.links_pb2 import LinkFrame, LinkHello, Offer
from tests.integration.local_cluster import LocalCluster
from tests.unit.instance.served import saying

pytestmark = pytest.mark.integration

PATIENCE_S = 10.0
PROMPT = "Once upon a time there was"
GREEDY: dict[str, Any] = {"max_tokens": 40, "temperature": 0}
EPOCH = pb.Epoch(term=1, n=1)


def make_proof() -> pb.Proof:
    return pb.Proof(proof=os.urandom(32))


async def how_it_ends(call: Any) -> grpc.StatusCode:
    """A call that hears of nothing but a challenge."""
    try:
        async for message in call:
            assert message.WhichOneof("message") == "challenge"
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def be_a_front(address: str, me: pb.Holder) -> grpc.StatusCode:
    """Of a later term, which would take the place of the one there is."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = instance_pb2_grpc.InstanceStub(channel)
        hello = pb.FrontMessage(hello=pb.FrontHello(front="router/2", term=2, instance=me))
        return await how_it_ends(stub.Serve(saying(hello, pb.FrontMessage(proof=make_proof()))))


async def be_a_source(address: str, source: pb.Holder, me: pb.Holder) -> grpc.StatusCode:
    """That asks for room without a proof."""
    async with grpc.aio.insecure_channel(address) as channel:
        stub = instance_pb2_grpc.InstanceStub(channel)
        hello = pb.SourceMessage(hello=pb.PeerHello(source=source, receiver=me))
        reserve = pb.Reserve(request_id="theirs", epoch=EPOCH, num_tokens=64, lease_s=60.0)
        return await how_it_ends(stub.Handover(saying(hello, pb.SourceMessage(reserve=reserve))))


def be_a_link(address: str, source: pb.Holder, me: pb.Holder) -> str:
    """Why there is none."""
    sock, sockaddr = FrameSocket.to(address)
    deadline = Deadline.after(PATIENCE_S, "answer")
    sock.connect(sockaddr, deadline)
    try:
        sock.send(LinkFrame(hello=LinkHello(source=source, receiver=me, transport="tcp")), deadline)
        sock.expect(deadline)
        sock.send(LinkFrame(proof=make_proof()), deadline)
        error = sock.expect(deadline).welcome.error
        assert sock.receive(deadline) is None
        return error
    finally:
        sock.close()


def be_hasty(address: str, source: pb.Holder, me: pb.Holder) -> None:
    """Offers blocks instead of a proof, for whichever reservation there may be."""
    sock, sockaddr = FrameSocket.to(address)
    deadline = Deadline.after(PATIENCE_S, "answer")
    sock.connect(sockaddr, deadline)
    try:
        sock.send(LinkFrame(hello=LinkHello(source=source, receiver=me, transport="tcp")), deadline)
        sock.expect(deadline)
        sock.send(LinkFrame(offer=Offer(slot=1, reservation=1, epoch=EPOCH, block_ids=[0])), deadline)
        assert not sock.expect(deadline).HasField("post")
    finally:
        sock.close()


async def test_a_stranger_gets_nothing_is_counted_and_disturbs_nobody() -> None:
    async with LocalCluster() as cluster:
        expected = (await cluster.client.complete(PROMPT, **GREEDY)).token_ids
        source, me = (
            pb.Holder(instance=name, incarnation=cluster.infos[name].incarnation) for name in ("prefill-0", "decode-0")
        )
        info = cluster.infos["decode-0"]
        under_way = asyncio.create_task(cluster.client.complete(PROMPT, **GREEDY, request_id="mine"))
        assert await be_a_front(info.address, me) is grpc.StatusCode.UNAUTHENTICATED
        assert await be_a_source(info.address, source, me) is grpc.StatusCode.UNAUTHENTICATED
        assert "no proof" in await asyncio.to_thread(be_a_link, info.link_address, source, me)
        await asyncio.to_thread(be_hasty, info.link_address, source, me)
        assert (await under_way).token_ids == expected
        await cluster.until(lambda status: instance(status, "decode-0").num_unauthenticated == 4)
        assert instance(cluster.service.router.status(), "prefill-0").num_unauthenticated == 0
        assert (await cluster.client.complete(PROMPT, **GREEDY)).token_ids == expected
        await cluster.until_empty()
        status = instance(cluster.service.router.status(), "decode-0")
        assert (status.num_unauthenticated, status.num_malformed) == (4, 0)


async def test_all_ports_are_open_on_the_address_that_was_configured_and_on_no_other() -> None:
    async with LocalCluster(host="127.0.0.2", router={"grpc_host": "127.0.0.3", "http_host": "127.0.0.4"}) as cluster:
        for info in cluster.infos.values():
            heard_at = {host for host, _ in listening(info.pid)}
            assert heard_at == {"127.0.0.2"}, f"{info.name} listens on {heard_at}"
        mine = dict(reversed(address) for address in listening(os.getpid()))
        for host, address in (("127.0.0.3", cluster.info.grpc_address), ("127.0.0.4", cluster.info.http_address)):
            assert address.startswith(f"{host}:")
            assert mine[int(address.rpartition(":")[2])] == host
        assert (await cluster.client.complete(PROMPT, **GREEDY)).token_ids


def instance(status: baton_pb2.ClusterStatus, name: str) -> baton_pb2.InstanceStatus:
    return next(it for it in status.instances if it.instance == name)


def listening(pid: int) -> Iterator[tuple[str, int]]:
    """(host, port) of every TCP socket of a process that listens, as the kernel sees them."""
    inodes = set()
    for entry in os.scandir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(entry.path).removeprefix("socket:[").removesuffix("]"))
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and fields[9] in inodes:
                host, port = fields[1].split(":")
                yield _host(host), int(port, 16)


def _host(text: str) -> str:
    """Words of 4 bytes, each in the machine's order; an IPv4 address may stand in an IPv6 one."""
    packed = b"".join(
        struct.pack(">I", *struct.unpack("=I", bytes.fromhex(text[i : i + 8]))) for i in range(0, len(text), 8)
    )
    if len(packed) == 4:
        return str(IPv4Address(packed))
    return str(IPv6Address(packed).ipv4_mapped or IPv6Address(packed))


def test_an_address_is_read_as_the_kernel_writes_it() -> None:
    with socket.create_server(("127.0.0.5", 0)) as server:
        assert server.getsockname() in set(listening(os.getpid()))
