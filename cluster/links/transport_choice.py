"""Which transport a link gets: what both ends allow, and the better one of what is left."""

import logging
from dataclasses import dataclass

from cluster.links.block_receivers import BlockReceiver, ShmBlockReceiver, TcpBlockReceiver
from cluster.links.device_region import DeviceRegion, dtype_of
from cluster.links.errors import LinkError
from cluster.links.frame_socket import FrameSocket
from cluster.links.host_identity import host_identity
from cluster.links.kv_region import KvRegion
from cluster.links.lanes import Lanes
from cluster.links.link_end import LinkEnd
from cluster.links.nccl_transfer import NcclBlockReceiver
from cluster.links.receiving import ReceivingEnd
from cluster.links.record_part import RecordPart, mapped_part, target_part
from cluster.messages import Holder
from cluster.pb.links_pb2 import LinkHello, LinkWelcome

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Choice:
    """What the source is told, and who takes what it sends: this part of each record."""

    welcome: LinkWelcome
    receiver: BlockReceiver
    part: RecordPart


def source_of(hello: LinkHello) -> LinkEnd:
    return LinkEnd(
        holder=Holder(hello.source.instance, hello.source.incarnation),
        rank=hello.source_rank,
        num_ranks=hello.source_num_ranks or 1,
    )


def check_meant(hello: LinkHello, receiving: ReceivingEnd) -> None:
    """Raises LinkError when this is not whom the source wants a link to."""
    ranks = (hello.receiver_rank, hello.receiver_num_ranks or 1)
    meant, end = (hello.receiver.instance, hello.receiver.incarnation, *ranks), receiving.end
    own = (end.holder.instance, end.holder.incarnation, end.rank, end.num_ranks)
    if meant != own:
        raise LinkError("this is {} in incarnation {}, rank {} of {}; meant was {}, {}, {} of {}".format(*own, *meant))


def choose(hello: LinkHello, receiving: ReceivingEnd, sock: FrameSocket, lanes: Lanes) -> Choice:
    """Raises LinkError when there is to be no link."""
    config, region = receiving.config, receiving.region
    source, own = source_of(hello), receiving.end
    if hello.kv_dtype and (own_dtype := dtype_of(region)) and hello.kv_dtype != own_dtype:
        raise LinkError(
            f"KV of {hello.source.instance} is in {hello.kv_dtype}, of {own.holder.instance} in {own_dtype}: "
            "it moves only between instances of the same spec.model.dtype"
        )
    if hello.record_bytes * source.num_ranks != region.record_bytes * own.num_ranks:
        raise LinkError(f"records of {hello.record_bytes} bytes do not fit {region.record_bytes}")
    part, source_part = target_part(region, source, own), mapped_part(region, source, own)
    asked = {hello.transport, config.transport} - {"auto"}
    if len(asked) > 1:
        raise LinkError(f"the source insists on {hello.transport}, the receiver on {config.transport}")
    if hello.on_device or isinstance(region, DeviceRegion) or asked == {"nccl"}:
        return Choice(LinkWelcome(transport="nccl"), _over_nccl(hello, receiving, sock, part, asked), part)
    if asked == {"tcp"}:
        return _over_tcp(hello, receiving, region, part, sock, lanes)
    try:
        if hello.host != host_identity():
            raise OSError("not on the same host")
        receiver = ShmBlockReceiver(sock, region, receiving.scratch, hello, source_part, part)
        return Choice(LinkWelcome(transport="shm"), receiver, part)
    except OSError as error:
        if asked == {"shm"}:
            raise LinkError(f"no shm link: {error}") from error
        if hello.host != host_identity():
            return _over_tcp(hello, receiving, region, part, sock, lanes)
        log.warning("tcp instead of shm for the link from %s: %s", hello.source.instance, error)
        return _over_tcp(hello, receiving, region, part, sock, lanes, note=f"no shm: {error}")


def _over_tcp(
    hello: LinkHello,
    receiving: ReceivingEnd,
    region: KvRegion,
    part: RecordPart,
    sock: FrameSocket,
    lanes: Lanes,
    note: str = "",
) -> Choice:
    link_id = receiving.links.open(source_of(hello), lanes)
    probe_bytes = min(region.record_bytes, hello.record_bytes)
    receiver = TcpBlockReceiver(
        sock, lanes, region, part, receiving.scratch, probe_bytes, lambda: receiving.links.close(link_id)
    )
    return Choice(LinkWelcome(transport="tcp", note=note, link_id=link_id), receiver, part)


def _over_nccl(
    hello: LinkHello, receiving: ReceivingEnd, sock: FrameSocket, part: RecordPart, asked: set[str]
) -> BlockReceiver:
    region = receiving.region
    on_device = isinstance(region, DeviceRegion)
    if not (hello.on_device and on_device):
        kinds = ["GPU" if each else "host" for each in (hello.on_device, on_device)]
        raise LinkError("no nccl link: KV is in {} memory at the source, in {} memory here".format(*kinds))
    if asked - {"nccl"}:
        raise LinkError(f"no {asked.pop()} link: KV is in GPU memory at both ends, which only nccl moves")
    assert isinstance(region, DeviceRegion)
    return NcclBlockReceiver(sock, region, part)
