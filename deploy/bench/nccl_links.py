"""`baton bench links --nccl`: links between two GPUs, or two processes on one, beside one bare NCCL message."""

import multiprocessing
import os
import queue
import random
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from cluster.handshake import draw_secret
from cluster.links.config import LinkConfig
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from cluster.links.outgoing_links import OutgoingLinks
from cluster.messages import BlockTransfer
from deploy.bench.links_peer import EPOCH, RECEIVER, SOURCE
from deploy.bench.nccl_links_peer import PATIENCE_S, RAW_SOURCE, make_region, patience, serve

REFERENCES = {"raw nccl": "raw nccl", "nccl link": "raw nccl", "nccl link, no checksums": "raw nccl"}
TWO_RANKS_ON_ONE_GPU = 23000  # NCCL 2.30


class NcclContest:
    """The source's side: one method per contestant, each moves `num_bytes` and returns the seconds it took."""

    def __init__(self, record_bytes: int, num_bytes: int, stack: ExitStack) -> None:
        """Raises NcclUnavailable where there are no two GPUs, and none for two."""
        os.environ.update(NCCL_MULTI_RANK_GPU_ENABLE="1")
        device = CupyDevice(0)
        peer_id = _peer_device(device)
        self._region, self._memory = make_region(device, num_bytes, record_bytes)
        self._outcomes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._random = random.Random(0)
        secret = draw_secret()
        context = multiprocessing.get_context("spawn")
        self._control, theirs = context.Pipe()
        peer = context.Process(target=serve, args=(theirs, secret, peer_id, num_bytes, record_bytes), daemon=True)
        peer.start()
        stack.callback(peer.join)
        stack.callback(self._control.send, ("end", None))
        self._address, unique_id = self._control.recv()
        self._channel = self._region.channels.open(patience())
        stack.callback(self._channel.close)
        self._channel.set_up(unique_id, RAW_SOURCE, patience().remaining_s)
        self._links = {}
        for checksum in (True, False):
            config = LinkConfig(transport="nccl", checksum=checksum, transfer_timeout_s=PATIENCE_S)
            self._links[checksum] = OutgoingLinks(SOURCE, self._region, config, self, secret=secret)
            stack.callback(self._links[checksum].close)

    @property
    def contestants(self) -> dict[str, Callable[[int], float]]:
        return {
            "raw nccl": self._raw,
            "nccl link": lambda num_bytes: self._link(num_bytes, checksum=True),
            "nccl link, no checksums": lambda num_bytes: self._link(num_bytes, checksum=False),
        }

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._outcomes.put("")

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._outcomes.put(reason)

    def _raw(self, num_bytes: int) -> float:
        """One contiguous message, for which both ends wait already."""
        block_ids = range(num_bytes // self._region.record_bytes)
        self._tell("raw nccl", block_ids)
        start_s = time.perf_counter()
        self._channel.send(self._region, block_ids, [len(block_ids)], patience().remaining_s)
        return time.perf_counter() - start_s

    def _link(self, num_bytes: int, *, checksum: bool) -> float:
        """Both sides' blocks lie in random order, as in an old instance; checksums are there since the sealing."""
        num_blocks = num_bytes // self._region.record_bytes
        source_ids, target_ids = (self._random.sample(range(self._region.num_records), num_blocks) for _ in "st")
        transfer = BlockTransfer(
            request_id="bench",
            epoch=EPOCH,
            reservation=1,
            first_block=0,
            block_ids=tuple(source_ids),
            checksums=self._region.checksums(source_ids) if checksum else (),
        )
        self._tell("open", target_ids)
        start_s = time.perf_counter()
        self._links[checksum].send(self._address, RECEIVER, transfer)
        if reason := self._outcomes.get():
            raise RuntimeError(f"nccl link: {reason}")
        return time.perf_counter() - start_s

    def _tell(self, command: str, argument: object) -> None:
        self._control.send((command, argument))
        self._control.recv_bytes()


def timing_note(num_devices: int) -> str:
    """What to know about the times, if anything: two processes on one GPU take turns at it where MPS does not run."""
    pipes = Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps"))
    if num_devices > 1 or (pipes / "control").exists():
        return ""
    return "one GPU without MPS: the processes take turns at it, and the times mean nothing"


def _peer_device(device: CupyDevice) -> int:
    if device.num_devices > 1:
        return 1
    if device.nccl_version() < TWO_RANKS_ON_ONE_GPU:
        raise NcclUnavailable(f"there is one GPU, and NCCL {device.nccl_version()} does not take two ranks on one")
    return 0
