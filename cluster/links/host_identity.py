"""Which processes can map each other's memory."""

import os
from functools import cache
from pathlib import Path


@cache
def host_identity() -> str:
    """Equal in two processes that share kernel, pid, network and time namespaces and user.

    The pid namespace makes `/proc/PID` mean the same process, the time namespace makes CLOCK_MONOTONIC the same clock,
    and network namespaces are kept apart because they stand for hosts where several are put on one machine.
    """
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    namespaces = [os.readlink(f"/proc/self/ns/{kind}") for kind in ("pid", "net", "time")]
    return ":".join([boot, *namespaces, str(os.getuid())])
