"""Few collections of garbage: what a simulation makes is let go of by counting, and looking through it takes time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_MORE_OBJECTS = 200_000


@contextmanager
def patient_gc() -> Iterator[None]:
    """Only cycles that are many make a collection; afterwards all is as before."""
    before = gc.get_threshold()
    gc.set_threshold(_MORE_OBJECTS, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
