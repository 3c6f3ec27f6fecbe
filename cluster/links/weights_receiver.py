"""Gets the weights of a model from an instance that runs, tensor by tensor."""

from typing import Self

import xxhash

from cluster.handshake import Caller, Unauthenticated
from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.frame_socket import FrameSocket
from cluster.links.weights import WeightsPart
from cluster.messages import Holder
from cluster.pb import instance_pb2
from cluster.pb.links_pb2 import LinkFrame, WeightsAsk, WeightsHello
from cluster.secret import ClusterSecret, Kind

PIECE_BYTES = 1 << 20
"""Each so many bytes have a deadline of their own."""


class WeightsReceiver:
    """A connection to the instance `asked` at `address`. Whatever fails is a LinkError; then it is of no more use."""

    def __init__(
        self, address: str, asked: Holder, part: WeightsPart, *, caller: str, secret: ClusterSecret, timeout_s: float
    ) -> None:
        self._timeout_s = timeout_s
        self._socket, sockaddr = FrameSocket.to(address)
        try:
            deadline = Deadline.after(timeout_s, f"answer from {address}")
            self._socket.connect(sockaddr, deadline)
            self.shapes = self._greet(asked, part, caller, secret, deadline)
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def fetch(self, name: str, shape: tuple[int, ...], into: memoryview) -> None:
        """All bytes of a tensor that is of this shape."""
        if name not in self.shapes:
            raise LinkError(f"{name} is not there")
        if self.shapes[name] != shape:
            raise LinkError(f"{name} has shape {self.shapes[name]} there, config.json asks for {shape}")
        self._socket.send(LinkFrame(weights_ask=WeightsAsk(name=name)), self._deadline(name))
        digest = xxhash.xxh3_64()
        for start in range(0, into.nbytes, PIECE_BYTES):
            piece = into[start : start + PIECE_BYTES]
            self._socket.receive_views([piece], self._deadline(name))
            digest.update(piece)
        sent = self._socket.expect(self._deadline(name)).weights_sent
        if (sent.name, sent.checksum) != (name, digest.intdigest()):
            raise LinkError(f"wrong checksum of {name}")

    def _deadline(self, name: str) -> Deadline:
        return Deadline.after(self._timeout_s, f"bytes of {name}")

    def _greet(
        self, asked: Holder, part: WeightsPart, name: str, secret: ClusterSecret, deadline: Deadline
    ) -> dict[str, tuple[int, ...]]:
        hello = WeightsHello(
            caller=name,
            asked=instance_pb2.Holder(instance=asked.instance, incarnation=asked.incarnation),
            model=part.model,
            dtype=part.dtype,
            rank=part.rank,
            num_ranks=part.num_ranks,
        )
        caller = Caller(secret, Kind.WEIGHTS, hello)
        self._socket.send(LinkFrame(weights_hello=hello), deadline)
        try:
            proof = caller.answer(self._socket.expect(deadline).challenge)
        except Unauthenticated as error:
            raise LinkError(f"{asked.instance} is not to be trusted: {error}") from error
        self._socket.send(LinkFrame(proof=proof), deadline)
        answer = self._socket.expect(deadline)
        if refusal := answer.welcome.error or answer.weights_index.error:
            raise LinkError(refusal)
        return {tensor.name: tuple(tensor.shape) for tensor in answer.weights_index.tensors}
