"""Both sides of the handshake that `cluster.secret` describes, in the messages of the wire."""

import secrets

from cluster.pb.instance_pb2 import Challenge, FrontHello, PeerHello, Proof
from cluster.pb.links_pb2 import LinkHello, WeightsHello
from cluster.pb.ranks_pb2 import LinksHello, RankHello
from cluster.secret import SECRET_BYTES, ClusterSecret, End, Kind, Opening

_NONCE_BYTES = 32

Hello = FrontHello | PeerHello | LinkHello | WeightsHello | RankHello | LinksHello


class Unauthenticated(Exception):
    """Whoever is at the other end has not shown that it knows the cluster's secret."""


def draw_secret() -> ClusterSecret:
    return ClusterSecret(secrets.token_bytes(SECRET_BYTES))


class Caller:
    """Puts a nonce into the hello, which must be sent as it is then."""

    def __init__(self, secret: ClusterSecret, kind: Kind, hello: Hello) -> None:
        self._secret = secret
        self._kind = kind
        hello.nonce = secrets.token_bytes(_NONCE_BYTES)
        self._hello = _signed(hello)

    def answer(self, challenge: Challenge) -> Proof:
        """Raises Unauthenticated: to a stranger nothing is proved."""
        opening = Opening(kind=self._kind, hello=self._hello, nonce=challenge.nonce)
        if not opening.is_proof(self._secret, End.CALLED, challenge.proof):
            raise Unauthenticated("it does not know the cluster's secret")
        return Proof(proof=opening.prove(self._secret, End.CALLER))


class Called:
    """Answers one hello."""

    def __init__(self, secret: ClusterSecret, kind: Kind, hello: Hello) -> None:
        self._secret = secret
        self._opening = Opening(kind=kind, hello=_signed(hello), nonce=secrets.token_bytes(_NONCE_BYTES))

    def challenge(self) -> Challenge:
        return Challenge(nonce=self._opening.nonce, proof=self._opening.prove(self._secret, End.CALLED))

    def check(self, proof: Proof) -> None:
        """Raises Unauthenticated."""
        if not self._opening.is_proof(self._secret, End.CALLER, proof.proof):
            raise Unauthenticated("no proof that it knows the cluster's secret")


def _signed(hello: Hello) -> bytes:
    """All of it, so that nobody can change on the way who speaks to whom, or where the memory is."""
    return hello.SerializeToString(deterministic=True)
