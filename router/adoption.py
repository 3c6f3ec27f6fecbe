"""The first phase of a router's life: it asks all instances what an earlier life left with them, and waits for each.

set_instances -> expect -> report or exclude, for each -> is_over -> Ledger.adopt
"""

from collections.abc import Iterable

from cluster.messages import Held, Holder, InstanceMessage


class Adoption:
    """What was said until it is over.

    `early`: messages about requests, to be taken up when the ledger knows them. `aborted`: requests not to go on with.
    """

    def __init__(self) -> None:
        self._awaited: set[Holder] | None = None
        self.reports: dict[Holder, tuple[Held, ...]] = {}
        self.early: list[tuple[Holder, InstanceMessage]] = []
        self.aborted: set[str] = set()

    @property
    def has_begun(self) -> bool:
        return self._awaited is not None

    @property
    def is_over(self) -> bool:
        """Everybody has answered or was excluded."""
        return self._awaited is not None and not self._awaited - self.reports.keys()

    def expect(self, holders: Iterable[Holder]) -> None:
        """These are all there are, the first time; those that come later are not waited for."""
        if self._awaited is None:
            self._awaited = set(holders)

    def report(self, holder: Holder, held: tuple[Held, ...]) -> None:
        """An instance that says it again on a new stream means the later one; what it said in between is in there."""
        self.reports[holder] = held
        self.early = [(speaker, message) for speaker, message in self.early if speaker != holder]

    def exclude(self, holder: Holder) -> None:
        """It is gone. What it said counts: its tokens are right, whoever runs them on."""
        if self._awaited is not None:
            self._awaited.discard(holder)

    def exclude_silent(self) -> None:
        if self._awaited is not None:
            self._awaited &= self.reports.keys()
