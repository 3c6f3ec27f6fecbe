"""A socket to listen on, or one line on why there is none."""

import socket

from router.errors import PortInUse


def listening_socket(host: str, port: int) -> socket.socket:
    """`port` 0 draws one. Raises PortInUse, also for a host that is not ours and a port we may not have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol, which those of `socket.create_server` do not:
    # each event of a stream would then wait some 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise PortInUse(host, port, error.strerror or str(error)) from None
    return listener


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
