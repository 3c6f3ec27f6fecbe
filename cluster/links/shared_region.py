"""Memory that other processes of this host can map: where an instance keeps its KV so that peers can copy from it."""

import fcntl
import mmap
import os
import re
import stat

SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW


class SharedRegion:
    """A memfd of fixed size: it has no name to clean up, and goes when the last process that maps it does.

    Its size is sealed, so that a reader can never be killed by a page that is gone (SIGBUS).
    """

    def __init__(self, fd: int, num_bytes: int) -> None:
        self._fd = fd
        self.num_bytes = num_bytes
        self.path = f"/proc/{os.getpid()}/fd/{fd}"
        self.buffer = memoryview(mmap.mmap(fd, num_bytes))

    @classmethod
    def create(cls, num_bytes: int) -> "SharedRegion":
        fd = os.memfd_create("baton-kv", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, num_bytes)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, SEALS | fcntl.F_SEAL_SEAL)
        return cls(fd, num_bytes)

    def close(self) -> None:
        """No longer to be mapped by others. The memory itself goes with the last view of it."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
            self.buffer = memoryview(b"")


def map_peer_region(path: str, num_bytes: int) -> mmap.mmap:
    """Another process's SharedRegion, read-only. OSError when it cannot be had, or is not what it is said to be."""
    if not re.fullmatch(r"/proc/[0-9]+/fd/[0-9]+", path):
        raise OSError(f"{path!r} is not a region of another process")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode) or status.st_size != num_bytes:
            raise OSError(f"{path} has {status.st_size} bytes, not the {num_bytes} that were announced")
        if fcntl.fcntl(fd, fcntl.F_GET_SEALS) & SEALS != SEALS:
            raise OSError(f"{path} is not sealed against a change of its size")
        return mmap.mmap(fd, num_bytes, prot=mmap.PROT_READ)
    finally:
        os.close(fd)
