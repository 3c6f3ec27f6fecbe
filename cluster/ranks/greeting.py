"""How a connection between ranks begins: hello, challenge, proof. Before the proof nothing is acted on."""

import socket
from typing import Any

from cluster.handshake import Called, Caller
from cluster.pb.ranks_pb2 import LinksHello, RankHello
from cluster.ranks.channel import RankChannel
from cluster.secret import ClusterSecret, Kind

GREETING_TIMEOUT_S = 5.0
"""For all of it."""
MAX_GREETING_BYTES = 64 << 10
"""Of a frame before the proof: a stranger cannot make this process take more."""

HELLOS = ("hello", "links_hello")


def call(address: str, kind: str, hello: RankHello | LinksHello, secret: ClusterSecret) -> RankChannel:
    """`kind`: what the hello is called in a RankFrame. Raises OSError and Unauthenticated."""
    host, _, port = address.rpartition(":")
    channel = RankChannel(socket.create_connection((host, int(port)), timeout=GREETING_TIMEOUT_S))
    try:
        channel.limit(GREETING_TIMEOUT_S)
        caller = Caller(secret, Kind.RANK, hello)
        channel.say(**{kind: hello})
        channel.say(proof=caller.answer(channel.hear("challenge").challenge))
    except BaseException:
        channel.close()
        raise
    channel.limit(None)
    return channel


def answer(channel: RankChannel, secret: ClusterSecret) -> tuple[str, Any]:
    """The hello that opens the channel, and of which kind it is. Raises OSError and Unauthenticated."""
    channel.limit(GREETING_TIMEOUT_S, MAX_GREETING_BYTES)
    frame = channel.hear(*HELLOS)
    kind = str(frame.WhichOneof("message"))
    hello = getattr(frame, kind)
    called = Called(secret, Kind.RANK, hello)
    channel.say(challenge=called.challenge())
    called.check(channel.hear("proof").proof)
    channel.limit(None)
    return kind, hello
