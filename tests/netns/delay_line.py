"""Cables that take time: packets go from one TUN device to another through this process, which keeps them for a while.

`python -m tests.netns.delay_line CABLES`, where CABLES is JSON: a list of [namespace, device, namespace, device,
seconds]. Says "ready" when the devices are there; they go with it. It stops when its standard input ends. The kernel's
own delay (netem) is not everywhere; this needs only /dev/net/tun.
"""

import contextlib
import ctypes
import fcntl
import json
import os
import select
import struct
import sys
import time
from collections import deque
from dataclasses import dataclass, field

from tests.netns.hosts import be_prompt, enter_namespace

TUN = "/dev/net/tun"
TUNSETIFF = 0x400454CA
IFF_TUN, IFF_NO_PI = 0x0001, 0x1000
PR_SET_TIMERSLACK = 29
MAX_PACKET_BYTES = 1 << 16


def why_not() -> str:
    """Why there can be no such cables here, or nothing."""
    try:
        os.close(os.open(TUN, os.O_RDWR))
    except OSError as error:
        return f"delays need {TUN}: {error.strerror}"
    return ""


@dataclass(slots=True)
class Direction:
    source_fd: int
    target_fd: int
    delay_s: float
    packets: deque[tuple[float, bytes]] = field(default_factory=deque)

    def take(self) -> None:
        due_s = time.monotonic() + self.delay_s
        with contextlib.suppress(BlockingIOError):
            while True:
                self.packets.append((due_s, os.read(self.source_fd, MAX_PACKET_BYTES)))

    def give(self) -> None:
        while self.packets and self.packets[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):  # the device is down, or full: a packet is lost
                os.write(self.target_fd, self.packets.popleft()[1])


def make_device(namespace: str, name: str) -> int:
    enter_namespace(namespace)
    fd = os.open(TUN, os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    return fd


def relay(directions: list[Direction]) -> None:
    by_fd = {direction.source_fd: direction for direction in directions}
    while True:
        due_s = min((each.packets[0][0] for each in directions if each.packets), default=None)
        timeout_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        readable, _, _ = select.select(
            [*by_fd, sys.stdin], [], [], timeout_s
        )  # waits to the microsecond; poll does not
        if sys.stdin in readable:
            return
        for fd in readable:
            by_fd[fd].take()
        for direction in directions:
            direction.give()


def main(cables: list[tuple[str, str, str, str, float]]) -> None:
    ctypes.CDLL(None).prctl(PR_SET_TIMERSLACK, 1)
    be_prompt()
    directions = []
    for namespace, device, other_namespace, other_device, delay_s in cables:
        one, other = make_device(namespace, device), make_device(other_namespace, other_device)
        directions += [Direction(one, other, delay_s), Direction(other, one, delay_s)]
    print("ready", flush=True)
    relay(directions)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
