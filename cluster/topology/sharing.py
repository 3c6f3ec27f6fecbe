"""How flows that are under way at the same time share what there is: max-min fairly, as TCP flows and NICs about do."""

from collections.abc import Hashable, Iterable, Mapping, Sequence


def max_min_rates(flows: Sequence[Iterable[Hashable]], capacities: Mapping[Hashable, float]) -> list[float]:
    """The rate of each flow; a flow is given as the resources that it passes through.

    All flows grow alike until a resource is full; its flows keep what they have, the others go on (progressive filling;
    Bertsekas and Gallager, Data Networks, section 6.5). A resource without a capacity does not limit.
    """
    passes = [[resource for resource in flow if resource in capacities] for flow in flows]
    rates = [float("inf")] * len(flows)
    growing = {index for index, resources in enumerate(passes) if resources}
    room = dict(capacities)
    while growing:
        users: dict[Hashable, int] = {}
        for index in growing:
            for resource in passes[index]:
                users[resource] = users.get(resource, 0) + 1
        tightest = min(users, key=lambda resource: room[resource] / users[resource])
        rate = max(0.0, room[tightest] / users[tightest])
        full = {index for index in growing if tightest in passes[index]}
        for index in full:
            rates[index] = rate
            for resource in passes[index]:
                room[resource] -= rate
        growing -= full
    return rates
