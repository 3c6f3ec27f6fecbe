"""Transfers that are over, until somebody asks for them."""

import threading
from collections import deque

from cluster.messages import TransferSample

MAX_SAMPLES = 512  # of a report's interval: far more than an estimate looks at


class SampleLog:
    """Thread-safe. Where nobody asks, the oldest go."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._samples: deque[TransferSample] = deque(maxlen=MAX_SAMPLES)

    def put(self, sample: TransferSample) -> None:
        with self._lock:
            self._samples.append(sample)

    def take(self) -> tuple[TransferSample, ...]:
        """Each is given out once, in the order in which they ended."""
        with self._lock:
            samples = tuple(self._samples)
            self._samples.clear()
        return samples
