"""Which instances are on which nodes, and between which nodes KV may therefore travel."""

from collections.abc import Iterator, Mapping

from cluster.messages import Holder
from cluster.topology.schedule import Pair, tournament
from router.scheduler import Member


class Places:
    """A node without instances is remembered for a while: most come back. Times are passed in."""

    def __init__(self) -> None:
        self.members: dict[Holder, Member] = {}
        self._nodes: dict[Holder, str] = {}  # of those that are gone too, as long as their node is remembered
        self._deserted: dict[str, float] = {}  # since when
        self._pairs: dict[Pair, None] | None = {}  # None: to be made anew when somebody asks

    @property
    def pairs(self) -> dict[Pair, None]:
        """Both ways, in rounds of disjoint pairs; then the nodes that several instances share with themselves."""
        if self._pairs is None:
            self._pairs = self._all_pairs()
        return self._pairs

    def node(self, holder: Holder) -> str | None:
        return self._nodes.get(holder)

    def come(self, member: Member) -> None:
        holder = member.place.holder
        self.members[holder], self._nodes[holder] = member, member.node
        self._deserted.pop(member.node, None)
        self._pairs = None

    def leave(self, holder: Holder, now_s: float) -> bool:
        """False: it was not there."""
        if self.members.pop(holder, None) is None:
            return False
        if not any(self.on(self._nodes[holder])):
            self._deserted[self._nodes[holder]] = now_s
        self._pairs = None
        return True

    def deserted(self, until_s: float) -> list[str]:
        """Nodes that have had no instance since then; they are remembered no more."""
        gone = [node for node, since_s in self._deserted.items() if since_s <= until_s]
        for node in gone:
            del self._deserted[node]
        self._nodes = {holder: node for holder, node in self._nodes.items() if node not in gone}
        return gone

    def on(self, node: str) -> Iterator[Member]:
        return (member for holder, member in self.members.items() if self._nodes[holder] == node)

    def ends(self, pair: Pair, num_failures: Mapping[Holder, int]) -> tuple[Member, Member]:
        """Of each node the instance with the fewest failures, of those the one with the least to do.

        The one with the least to do may have it because nothing gets through to it.
        """
        here, there = (
            sorted(self.on(node), key=lambda it: (num_failures.get(it.place.holder, 0), it.num_tokens_in_all))
            for node in pair
        )
        return here[0], next(it for it in there if it is not here[0])

    def _all_pairs(self) -> dict[Pair, None]:
        nodes = [self._nodes[holder] for holder in self.members]
        there = [pair for pairs in tournament(sorted(set(nodes))) for pair in pairs]
        back = [(target, source) for source, target in there]
        return dict.fromkeys([*there, *back, *((node, node) for node in sorted(set(nodes)) if nodes.count(node) > 1)])
