"""Gives the weights that are here to an instance that starts, at a pace that leaves the links to requests."""

import logging
import threading
import time

import xxhash

from cluster import failpoints
from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError, MalformedFrame
from cluster.links.frame_socket import FrameSocket
from cluster.links.weights import WeightsPart, WeightsSource
from cluster.messages import Holder
from cluster.pb.links_pb2 import LinkFrame, WeightsHello, WeightsIndex, WeightsSent, WeightsTensor

IDLE_S = 60.0
"""Who asks for nothing for so long has lost its place."""

MAX_PAUSE_S = 1.0

log = logging.getLogger(__name__)


class WeightsSender:
    """One asks at a time. After each piece it rests as long as that took; longer where `bytes_per_s` asks for it.

    `bytes_per_s` is for the `num_ranks` of an instance, of which each has its equal share.
    """

    def __init__(
        self,
        source: WeightsSource,
        *,
        piece_bytes: int,
        timeout_s: float,
        bytes_per_s: int | None = None,
        num_ranks: int = 1,
    ) -> None:
        self._source = source
        bytes_per_s = bytes_per_s and max(bytes_per_s // num_ranks, 1)
        self._bytes_per_s = bytes_per_s
        self._piece_bytes = piece_bytes if bytes_per_s is None else min(piece_bytes, bytes_per_s)
        self._timeout_s = timeout_s
        self._place = threading.Lock()

    def serve(self, sock: FrameSocket, hello: WeightsHello, here: Holder) -> None:
        """Until the caller, which has proved that it is of this cluster, has all it wants. Raises LinkError."""
        if refusal := self._refusal(hello, here):
            self._answer(sock, WeightsIndex(error=refusal))
            return
        if not self._place.acquire(blocking=False):
            self._answer(sock, WeightsIndex(error="another instance is getting them"))
            return
        try:
            log.info("%s gets its weights from here", hello.caller)
            tensors = [WeightsTensor(name=name, shape=shape) for name, shape in self._source.shapes.items()]
            self._answer(sock, WeightsIndex(tensors=tensors))
            while (frame := sock.receive(Deadline.after(IDLE_S, "further tensor asked for"))) is not None:
                self._send(sock, frame.weights_ask.name)
        finally:
            self._place.release()

    def _refusal(self, hello: WeightsHello, here: Holder) -> str:
        asked = Holder(hello.asked.instance, hello.asked.incarnation)
        if asked != here:
            return f"this is {here.instance} in incarnation {here.incarnation}; meant was {asked}"
        wanted = WeightsPart(model=hello.model, dtype=hello.dtype, rank=hello.rank, num_ranks=hello.num_ranks)
        return "" if wanted == self._source.part else f"it has {self._source.part}; wanted is {wanted}"

    def _answer(self, sock: FrameSocket, index: WeightsIndex) -> None:
        sock.send(LinkFrame(weights_index=index), Deadline.after(self._timeout_s, "taking of the index"))

    def _send(self, sock: FrameSocket, name: str) -> None:
        if name not in self._source.shapes:
            raise MalformedFrame(f"{name!r} is asked for, which is no tensor here")
        digest = xxhash.xxh3_64()
        start_s = time.monotonic()
        for piece in self._source.pieces(name, self._piece_bytes):
            digest.update(piece)
            failpoints.hit("links.weights.piece", piece)
            sock.send_views([piece], Deadline.after(self._timeout_s, f"taking of {name}"))
            start_s = self._rest(piece.nbytes, start_s, sock)
        sent = WeightsSent(name=name, checksum=digest.intdigest())
        sock.send(LinkFrame(weights_sent=sent), Deadline.after(self._timeout_s, f"taking of {name}"))

    def _rest(self, num_bytes: int, start_s: float, sock: FrameSocket) -> float:
        """When the next piece begins."""
        took_s = time.monotonic() - start_s
        least_s = num_bytes / self._bytes_per_s - took_s if self._bytes_per_s else 0.0
        time.sleep(min(max(took_s, least_s), MAX_PAUSE_S))
        if sock.has_hung_up():
            raise LinkError("the caller is gone")
        return time.monotonic()
