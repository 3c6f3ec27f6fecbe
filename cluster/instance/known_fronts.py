"""Which fronts speak to this instance, and whose requests nobody has asked after for too long."""

from collections.abc import Iterable

from cluster.instance.hosted import Hosted
from cluster.instance.retained import name_of


class KnownFronts:
    """A front has a name that stays and a term that grows: `router/17`."""

    def __init__(self, grace_s: float) -> None:
        self._grace_s = grace_s
        self._terms: dict[str, int] = {}
        self._connected: dict[str, str] = {}
        self._missing_since_s: dict[str, float] = {}

    def joined(self, front: str) -> None:
        name = name_of(front)
        self._terms[name] = max(self._terms.get(name, 0), term_of(front))
        self._connected[name] = front
        self._missing_since_s.pop(name, None)

    def lost(self, front: str) -> None:
        name = name_of(front)
        if self._connected.get(name) == front:
            del self._connected[name]

    def is_over(self, front: str) -> bool:
        """A later term has begun: what this one says has no meaning any more."""
        return term_of(front) < self._terms.get(name_of(front), 0)

    @property
    def term(self) -> int:
        """The greatest that was ever seen."""
        return max(self._terms.values(), default=0)

    def orphans(self, every: Iterable[Hosted], now_s: float) -> list[Hosted]:
        """Those whose front has been gone for `grace_s`."""
        missing = [hosted for hosted in every if name_of(hosted.front) not in self._connected]
        since = {name: self._missing_since_s.get(name, now_s) for name in {name_of(it.front) for it in missing}}
        self._missing_since_s = since
        return [hosted for hosted in missing if now_s - since[name_of(hosted.front)] > self._grace_s]


def term_of(front: str) -> int:
    _, _, term = front.rpartition("/")
    return int(term) if term.isdigit() else 0
