"""What came to an instance and was not acted on."""

import threading


class Drops:
    """Counted by the threads of links and by the event loop alike."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.num_unauthenticated = 0
        self.num_malformed = 0
        self.num_checksum_failures = 0

    def on_unauthenticated(self) -> None:
        """A stream or link ended without a proof that the caller knows the cluster's secret."""
        with self._lock:
            self.num_unauthenticated += 1

    def on_malformed(self) -> None:
        """A message made no sense, or spoke for somebody else."""
        with self._lock:
            self.num_malformed += 1

    def on_damaged(self) -> None:
        """Blocks came whose checksum did not fit."""
        with self._lock:
            self.num_checksum_failures += 1
