"""A socket to listen on, or one line on why there is none."""

import socket

from router.errors import PortInUse


def listening_socket(host: str, port: int) -> socket.socket:
    """`port` 0 draws one. Raises PortInUse, also for a host that is not ours and a port we may not have."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise PortInUse(host, port, error.strerror or str(error)) from None


def address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
