"""What others are told of links: deploy's placement, for one."""

from dataclasses import dataclass

from cluster.topology.schedule import Pair
from cluster.topology.topology import Topology


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveLinks:
    """As believed now; over `broken` ones nothing gets, whatever the topology says of them."""

    topology: Topology
    broken: frozenset[Pair] = frozenset()
