"""What the processes of one cluster know and nobody else does, and how two of them show each other that they know it.

    caller                                        called
      | --- hello: who speaks to whom, a nonce ------> |
      | <-- challenge: a nonce, the called's proof --- |
      | --- the caller's proof ----------------------> |

A proof is the HMAC of all that was said before it. It holds for one stream only, because each end has put a nonce of
its own into what is signed; for one end only, because the end is signed too; and for one pair of processes and one
kind of stream. It says who is there, not that nobody is in between: what follows it is neither sealed nor hidden, so a
network that others can write on needs a tunnel besides.
"""

import hmac
from dataclasses import dataclass, field
from enum import Enum

SECRET_BYTES = 32


class End(Enum):
    CALLER = b"caller"
    CALLED = b"called"


class Kind(Enum):
    """What the stream is for."""

    SERVE = b"serve"
    HANDOVER = b"handover"
    LINK = b"link"
    RANK = b"rank"
    WEIGHTS = b"weights"


@dataclass(frozen=True, slots=True)
class ClusterSecret:
    """Made when the cluster comes up, given to each of its processes, and shown to nobody, logs included."""

    value: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.value) < SECRET_BYTES:
            raise ValueError(f"a cluster's secret has at least {SECRET_BYTES} bytes")


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """A stream's beginning: `hello` as it is on the wire, with the caller's nonce in it, and the called's nonce."""

    kind: Kind
    hello: bytes
    nonce: bytes

    def prove(self, secret: ClusterSecret, end: End) -> bytes:
        # With its length before each part, no two openings sign the same bytes.
        parts = (b"baton/1", end.value, self.kind.value, self.hello, self.nonce)
        signed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
        return hmac.digest(secret.value, signed, "sha256")

    def is_proof(self, secret: ClusterSecret, end: End, proof: bytes) -> bool:
        return hmac.compare_digest(self.prove(secret, end), proof)
