"""How a connection between ranks begins: hello, challenge, proof. Before the proof nothing is acted on."""

import socket
from typing import Any

from cluster.handshake import Called, Caller
from cluster.pb.ranks_pb2 import LinksHello, RankHello
from cluster.ranks.channel import RankChannel
from cluster.secret import ClusterSecret, Kind

GREETING_TIMEOUT_S = 5.0


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


def answer(channel: RankChannel, kind: str, secret: ClusterSecret) -> Any:
    """The hello of this kind that opens the channel. Raises OSError and Unauthenticated."""
    channel.limit(GREETING_TIMEOUT_S)
    hello = getattr(channel.hear(kind), kind)
    called = Called(secret, Kind.RANK, hello)
    channel.say(challenge=called.challenge())
    called.check(channel.hear("proof").proof)
    channel.limit(None)
    return hello
