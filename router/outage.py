"""How long a kind of instance has been missing."""

import asyncio
from collections.abc import Callable


class Outage:
    """Calls `on_timeout` whenever some role has been missing for `timeout_s` more; `is_long` from the first time on."""

    def __init__(self, timeout_s: float, on_timeout: Callable[[], None]) -> None:
        self._timeout_s = timeout_s
        self._on_timeout = on_timeout
        self._timer: asyncio.TimerHandle | None = None
        self.is_long = False

    def watch(self, is_missing: bool) -> None:
        """To be told whenever it may have changed."""
        if not is_missing:
            self.close()
        elif self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._timeout_s, self._fire)

    def close(self) -> None:
        self.is_long = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _fire(self) -> None:
        self._timer = None
        self.is_long = True
        self._on_timeout()
