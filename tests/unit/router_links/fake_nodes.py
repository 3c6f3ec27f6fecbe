"""Instances on nodes, by hand: they answer probes, and tell of transfers, as the test's network has it."""

from cluster.messages import Holder, Probe, Probed, Transfers, TransferSample
from cluster.role import InstanceRole
from cluster.topology.link_model import LinkModel
from router.ledger import Ledger, Place
from router.links.links import Links
from router.scheduler import Member

GOOD = LinkModel(alpha_s=1e-4, beta_bytes_per_s=1e8)
SLOW = LinkModel(alpha_s=1e-4, beta_bytes_per_s=1e7)
SIZES = (4 << 10, 64 << 10, 1 << 20, 4 << 20)


class FakeNodes:
    """`FakeNodes("a", "b")`: an instance on each, named after it with a number: a0, b0."""

    def __init__(self, *nodes: str, **options) -> None:
        self.now_s = 100.0
        self.said: list[tuple[Holder, Probe]] = []
        self.network: dict[tuple[str, str], LinkModel] = {}
        self.broken: set[tuple[str, str]] = set()
        self.sick: set[Holder] = set()  # nothing gets out of those, or to them
        self.ledger = Ledger(1)
        self.links = Links(
            self.ledger, lambda to, message: self.said.append((to, message)), clock=self.clock, **options
        )
        self.holders = [self.join(node, 0) for node in nodes]

    def clock(self) -> float:
        return self.now_s

    def join(self, node: str, number: int = 0) -> Holder:
        holder = Holder(f"{node}{number}", 1)
        member = Member(
            place=Place(holder, f"{node}:1", f"{node}:2"),
            role=InstanceRole.MIXED,
            num_blocks=64,
            block_size=16,
            max_num_seqs=8,
            saturation_tokens=128,
            node=node,
            block_bytes=16_000,
        )
        self.links.on_joined(member)
        return holder

    def act(self, after_s: float = 0.0) -> list[tuple[str, str]]:
        """The pairs of nodes that are to be probed, after so long."""
        self.now_s += after_s
        num_said = len(self.said)
        self.links.act()
        return [pair_of(source, probe) for source, probe in self.said[num_said:]]

    def answer_all(self, took_s: float = 0.1) -> None:
        waiting, self.said = self.said, []
        self.now_s += took_s
        for source, probe in waiting:
            self.answer(source, probe)

    def answer(self, source: Holder, probe: Probe) -> None:
        pair = pair_of(source, probe)
        if pair in self.broken or not self.sick.isdisjoint((source, probe.target)):
            answer = Probed(number=probe.number, target=probe.target, error="refused")
        else:
            model = self.network.get(pair, GOOD)
            samples = tuple(self.sample(probe.target, size, model.seconds(size)) for size in SIZES)
            answer = Probed(
                number=probe.number, target=probe.target, transport="tcp", samples=samples, num_connections=2
            )
        self.links.on_measured(source, answer)

    def probe_all(self) -> None:
        """Until nobody is to be probed."""
        while self.act():
            self.answer_all()

    def sample(self, target: Holder, num_bytes: int, seconds: float) -> TransferSample:
        return TransferSample(target=target, transport="tcp", num_bytes=num_bytes, seconds=seconds, ended_s=self.now_s)

    def transfer(self, source: Holder, target: Holder, num_bytes: int = 4 << 20) -> None:
        """One that ends now, with the link to itself."""
        model = self.network.get((node_of(source), node_of(target)), GOOD)
        self.now_s += model.seconds(num_bytes)
        sample = self.sample(target, num_bytes, model.seconds(num_bytes))
        self.links.on_measured(source, Transfers(samples=(sample,)))

    def row(self, source: str, target: str):
        return next(row for row in self.links.link_rows() if row.pair == (source, target))


def node_of(holder: Holder) -> str:
    return holder.instance[:-1]


def pair_of(source: Holder, probe: Probe) -> tuple[str, str]:
    return node_of(source), node_of(probe.target)
