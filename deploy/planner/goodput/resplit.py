"""Other roles for what runs: instances change them by flips, and nothing starts anew."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from cluster.topology.topology import Topology
from deploy.planner.goodput.bound import layout_bound
from deploy.planner.goodput.estimate import RatesOf
from deploy.planner.goodput.evaluation import Ask, Evaluate
from deploy.planner.goodput.layout import Layout, Seated, sub_topology
from deploy.planner.goodput.unit import Role, Unit, join

Roles = Mapping[str, Role]


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleChange:
    instance: str
    before: Role
    after: Role


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Resplit:
    """`current` and `best`: requests a second within the SLOs, with the roles as they are and after the changes."""

    changes: tuple[RoleChange, ...]
    current: float
    best: float
    layout: Layout


def find_resplit(
    running: Sequence[Seated],
    fixed: frozenset[str],
    topology: Topology,
    rates_of: RatesOf,
    request_bytes: float,
    evaluate: Evaluate,
) -> Resplit:
    """The numbers of roles that serve most, and the fewest flips that get there. `fixed`: who keeps its role."""
    choices = [(changes, _layout(running, roles, topology)) for changes, roles in _choices(running, fixed, topology)]
    asks = [Ask(layout=layout, at_most=layout_bound(layout, rates_of, request_bytes)) for _, layout in choices]
    able = [at for at, ask in enumerate(asks) if ask.at_most > 0.0]
    rates = [0.0] * len(asks)
    for at, answer in zip(able, evaluate([asks[at] for at in able]), strict=True):
        rates[at] = answer.rate or 0.0
    best = max(range(len(rates)), key=lambda at: (rates[at], -len(choices[at][0])))
    changes, layout = choices[best]
    return Resplit(changes=changes, current=rates[0], best=rates[best], layout=layout)


def _choices(
    running: Sequence[Seated], fixed: frozenset[str], topology: Topology
) -> Iterator[tuple[tuple[RoleChange, ...], Roles]]:
    """As it is first; then what flips can make of it."""
    now = _roles(running)
    yield (), now
    for roles in _other_roles(running, fixed, topology):
        changes = _changes(now, roles)
        if roles != now and changes is not None:
            yield changes, roles


def _other_roles(running: Sequence[Seated], fixed: frozenset[str], topology: Topology) -> Iterator[dict[str, Role]]:
    """All numbers of prefill and decode, and all colocated."""
    now = _roles(running)
    free = [seat for seat in running if seat.name not in fixed]
    for num_prefill in range(len(free) + 1):
        roles = now | _split(free, num_prefill, running, topology)
        if {"prefill", "decode"} <= set(roles.values()):
            yield roles
    yield now | {seat.name: "mixed" for seat in free}


def _split(free: Sequence[Seated], num_prefill: int, running: Sequence[Seated], topology: Topology) -> dict[str, Role]:
    """So many of them prefill: who does already stays, as far as it can; else who is nearest to those that decode."""
    nearness = {seat.name: _to_others_s(seat, running, topology) for seat in free}
    order: dict[Role, int] = {"prefill": 0, "mixed": 1, "decode": 2}
    ordered = sorted(free, key=lambda seat: (order[seat.pool.role], nearness[seat.name], seat.name))
    return {seat.name: "prefill" if at < num_prefill else "decode" for at, seat in enumerate(ordered)}


def _to_others_s(seat: Seated, running: Sequence[Seated], topology: Topology) -> float:
    """Seconds a byte from there to the others, on the average."""
    source = topology.index(seat.node)
    targets = [topology.index(other.node) for other in running if other.name != seat.name]
    per_byte = 1.0 / topology.beta_bytes_per_s[source, targets]
    return float(np.where(np.isfinite(per_byte), per_byte, 0.0).mean()) if targets else 0.0


def _layout(running: Sequence[Seated], roles: Roles, topology: Topology) -> Layout:
    seats = tuple(replace(seat, pool=replace(seat.pool, role=roles[seat.name])) for seat in running)
    used = {seat.node for seat in seats}
    names = [node.name for node in topology.nodes if node.name in used]
    unit = join([Unit(pools=(seat.pool,)) for seat in seats])
    return Layout(unit=unit, seats=seats, topology=sub_topology(topology, names))


def _roles(running: Sequence[Seated]) -> dict[str, Role]:
    return {seat.name: seat.pool.role for seat in running}


def _changes(before: Roles, after: Roles) -> tuple[RoleChange, ...] | None:
    """In an order in which others can do the work of each while it is drained; None: there is none."""
    now, found = dict(before), []
    left = sorted((name for name in now if now[name] != after[name]), key=lambda name: (after[name] != "mixed", name))
    while left:
        name = next((name for name in left if _can_be_spared(name, now)), None)
        if name is None:
            return None
        found.append(RoleChange(instance=name, before=now[name], after=after[name]))
        now[name] = after[name]
        left.remove(name)
    return tuple(found)


def _can_be_spared(instance: str, roles: Roles) -> bool:
    others = {role for name, role in roles.items() if name != instance}
    return "mixed" in others or {"prefill", "decode"} <= others
