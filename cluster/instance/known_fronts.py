"""Which fronts speak to this instance, and whose requests nobody has asked after for too long."""

from collections.abc import Iterable

from cluster.instance.hosted import Hosted
from cluster.instance.retained import name_of


class KnownFronts:
    """A front has a name that stays and a term that grows: `router/17`. Its latest life is the one that counts."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._connected: dict[str, str] = {}
        self._latest: dict[str, str] = {}
        self._missing_since_s: dict[str, float] = {}

    def joined(self, front: str) -> None:
        name = name_of(front)
        self._connected[name] = self._latest[name] = front
        self._missing_since_s.pop(name, None)

    def lost(self, front: str) -> None:
        name = name_of(front)
        if self._connected.get(name) == front:
            del self._connected[name]

    def current(self, front: str) -> str:
        """A baton may name a life of its front that is over."""
        return self._latest.get(name_of(front), front)

    def orphans(self, every: Iterable[Hosted], now_s: float) -> list[Hosted]:
        """Those whose front has been gone for `grace_s`."""
        missing = [hosted for hosted in every if name_of(hosted.front) not in self._connected]
        since = {name: self._missing_since_s.get(name, now_s) for name in {name_of(it.front) for it in missing}}
        self._missing_since_s = since
        return [hosted for hosted in missing if now_s - since[name_of(hosted.front)] > self._grace_s]
