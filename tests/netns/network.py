"""Hosts and the cables between them: every pair its own (`mesh`), or all on one switch (`star`)."""

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from typing import Self

from tests.netns import shaping
from tests.netns.hosts import ROOT, Host, namespaces, run

MAX_PACKET_BYTES = 65_000
SWITCH = "switch"
SWITCH_ADDRESS = "10.77.0.254"
NETWORK = "10.77.0.0/24"

Way = tuple[str, str]


@dataclass(slots=True)
class Direction:
    """`bytes_per_s` None: as fast as this machine is."""

    bytes_per_s: float | None
    mtu: int
    is_cut: bool = False


@dataclass(slots=True)
class Network:
    """Names of hosts say which; in a star the other end of every cable is `SWITCH`."""

    every: dict[str, Host]
    ways: dict[Way, Direction] = field(default_factory=dict)

    @property
    def hosts(self) -> list[Host]:
        return [host for name, host in self.every.items() if name != SWITCH]

    def __getitem__(self, name: str) -> Host:
        return self.every[name]

    def shape(self, source: str, target: str, bytes_per_s: float | None) -> None:
        """What this direction gives from now on."""
        self.ways[source, target].bytes_per_s = bytes_per_s
        self.apply(source, target)

    def cut(self, one: str, other: str) -> None:
        """Nothing gets through, either way, and nobody is told."""
        self._set_cut(one, other, True)

    def mend(self, one: str, other: str) -> None:
        self._set_cut(one, other, False)

    def cut_off(self, name: str) -> None:
        """From all others."""
        for other in self._neighbours(name):
            self.cut(name, other)

    def rejoin(self, name: str) -> None:
        for other in self._neighbours(name):
            self.mend(name, other)

    def to_json(self) -> str:
        """For another process that is to lay hands on it."""
        hosts = [asdict(host) for host in self.every.values()]
        ways = [[*way, asdict(direction)] for way, direction in self.ways.items()]
        return json.dumps({"hosts": hosts, "ways": ways})

    @classmethod
    def from_json(cls, text: str) -> Self:
        fields = json.loads(text)
        hosts = [Host(**host) for host in fields["hosts"]]
        ways = {(source, target): Direction(**direction) for source, target, direction in fields["ways"]}
        return cls({host.name: host for host in hosts}, ways)

    def _neighbours(self, name: str) -> list[str]:
        return [target for source, target in self.ways if source == name]

    def _set_cut(self, one: str, other: str, is_cut: bool) -> None:
        for way in ((one, other), (other, one)):
            self.ways[way].is_cut = is_cut
            self.apply(*way)

    def apply(self, source: str, target: str) -> None:
        """To the cable, what is said here of it."""
        direction, ends = self.ways[source, target], (self.every[source], self.every[target])
        if direction.is_cut:
            shaping.block(*ends)
        else:
            shaping.shape(*ends, direction.bytes_per_s, direction.mtu)


@contextmanager
def mesh(
    num_hosts: int,
    *,
    bytes_per_s: float | None = None,
    rates: Mapping[Way, float] | None = None,
    delays_s: Mapping[Way, float] | None = None,
) -> Iterator[Network]:
    """Hosts a, b, c ...; a cable for every pair, of `bytes_per_s` each way unless `rates` says otherwise.

    A rate that is given for one way only is that of both. The pairs of `delays_s` get a cable on which every packet
    takes so long, each way.
    """
    names = "abcdefghijklmnop"[:num_hosts]
    rates, delays_s = rates or {}, delays_s or {}
    with ExitStack() as ends:
        network = Network({host.name: host for host in ends.enter_context(namespaces(names))})
        for source, target in itertools.combinations(names, 2):
            ways = ((source, target), (target, source))
            each = [rates.get(way, rates.get(way[::-1], bytes_per_s)) for way in ways]
            largest = MAX_PACKET_BYTES if set(ways) & set(delays_s) else shaping.JUMBO_MTU_BYTES
            mtu = shaping.mtu_bytes(min(rate or math.inf for rate in each), largest)
            network.ways |= {way: Direction(rate, mtu) for way, rate in zip(ways, each, strict=True)}
        if delays_s:
            ends.enter_context(_delay_lines(network, delays_s))
        for pair in itertools.combinations(names, 2):
            if not {pair, pair[::-1]} & set(delays_s):
                _lay_cable(*(network[name] for name in pair))
            _bring_up(network, *pair)
            _bring_up(network, *pair[::-1])
        yield network


@contextmanager
def star(num_hosts: int, *, bytes_per_s: float | None = None) -> Iterator[Network]:
    """Hosts a, b, c ... with one cable each, to a switch: what a host sends to all others shares it."""
    names = "abcdefghijklmnop"[:num_hosts]
    with namespaces([*names, SWITCH]) as hosts:
        network = Network({host.name: host for host in hosts})
        switch = network[SWITCH]
        run("ip", "-n", switch.namespace, "address", "add", f"{SWITCH_ADDRESS}/32", "dev", "lo")
        run(*switch.enter, "sysctl", "-qw", "net.ipv4.ip_forward=1")
        for name in names:
            _lay_cable(network[name], switch)
            mtu = shaping.mtu_bytes(bytes_per_s or math.inf)
            network.ways |= {way: Direction(bytes_per_s, mtu) for way in ((name, SWITCH), (SWITCH, name))}
            _bring_up(network, SWITCH, name)
            _bring_up(network, name, SWITCH)
        yield network


def _lay_cable(one: Host, other: Host) -> None:
    ends = [("name", host.device(peer), "netns", host.namespace) for host, peer in ((one, other), (other, one))]
    run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])


def _bring_up(network: Network, source: str, target: str) -> None:
    here, there, mtu = network[source], network[target], network.ways[source, target].mtu
    device = here.device(there)
    routes = [f"route add {there.address} dev {device} src {here.address}"]
    if target == SWITCH:
        to_switch = f"route add {SWITCH_ADDRESS} dev {device} src {here.address}"
        routes = [to_switch, f"route add {NETWORK} via {SWITCH_ADDRESS} src {here.address}"]
    if source == SWITCH:
        routes = [f"route add {there.address} dev {device} src {SWITCH_ADDRESS}"]
    commands = [f"link set {device} mtu {mtu} up", *routes]
    run("ip", "-n", here.namespace, "-batch", "-", text="\n".join(commands))
    network.apply(source, target)


@contextmanager
def _delay_lines(network: Network, delays_s: Mapping[Way, float]) -> Iterator[None]:
    cables = []
    for (source, target), delay_s in delays_s.items():
        one, other = network[source], network[target]
        cables.append([one.namespace, one.device(other), other.namespace, other.device(one), delay_s])
    command = [sys.executable, "-m", "tests.netns.delay_line", json.dumps(cables)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n", "the delay line did not start"
        yield
    finally:
        process.kill()
        process.communicate()
