"""The receiving process of `baton bench links --nccl`: a link listener on a GPU, and one end of a bare communicator."""

from multiprocessing.connection import Connection

from cluster.links.config import LinkConfig
from cluster.links.deadline import Deadline
from cluster.links.device_region import DeviceRegion
from cluster.links.link_listener import LinkListener
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import DeviceBuffer
from cluster.links.slot_table import SlotTable
from cluster.secret import ClusterSecret
from deploy.bench.links_peer import EPOCH, RECEIVER, SOURCE, Quiet

PATIENCE_S = 120.0
RAW_SOURCE, RAW_RECEIVER = 0, 1


def make_region(device: CupyDevice, num_bytes: int, record_bytes: int) -> tuple[DeviceRegion, DeviceBuffer]:
    """Memory with whatever is in it, and what keeps it."""
    device.bind()
    buffer = device.allocate(num_bytes)
    region = DeviceRegion(
        device,
        pointer=buffer.pointer,
        record_bytes=record_bytes,
        num_records=num_bytes // record_bytes,
        checksums=device.checksummer(buffer.pointer, record_bytes),
    )
    return region, buffer


def patience() -> Deadline:
    return Deadline.after(PATIENCE_S, "peer")


def serve(control: Connection, secret: ClusterSecret, device_id: int, num_bytes: int, record_bytes: int) -> None:
    """Obeys (command, argument) until ("end", None). Answers before the clock starts."""
    region, _memory = make_region(CupyDevice(device_id), num_bytes, record_bytes)
    slots = SlotTable(lambda reservation: None)
    config = LinkConfig(checksum=False, transfer_timeout_s=PATIENCE_S)
    listener = LinkListener(RECEIVER, region, slots, config, Quiet(), secret=secret, host="127.0.0.1")
    channel = region.channels.open(patience())
    unique_id = channel.make_unique_id(patience().remaining_s)
    control.send((listener.address, unique_id))
    channel.set_up(unique_id, RAW_RECEIVER, patience().remaining_s)
    while (command := control.recv())[0] != "end":
        name, argument = command
        if name == "open":
            slots.close(1)
            slots.open(1, SOURCE, EPOCH, argument, 0)
        control.send_bytes(b"ready")
        if name == "raw nccl":
            channel.receive(region, argument, [len(argument)], patience().remaining_s, checksum=False)
    channel.close()
    listener.close()
