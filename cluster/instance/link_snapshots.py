"""The links of an instance as others see them: one to each other instance, whatever ranks both have."""

from collections.abc import Iterable

from cluster.links.link_stats import LinkStatus
from cluster.snapshot import LinkSnapshot


def link_snapshots(parts: Iterable[LinkStatus]) -> tuple[LinkSnapshot, ...]:
    """`parts`: of links between ranks. A transfer has a piece on each, side by side: the slowest says how long."""
    groups: dict[tuple[str, str], list[LinkStatus]] = {}
    for part in parts:
        groups.setdefault((part.source, part.target), []).append(part)
    return tuple(_whole(group) for group in groups.values())


def _whole(parts: list[LinkStatus]) -> LinkSnapshot:
    return LinkSnapshot(
        source=parts[0].source,
        target=parts[0].target,
        transport=", ".join(sorted({part.transport for part in parts if part.transport})),
        num_transfers=max(part.num_transfers for part in parts),
        num_bytes=sum(part.num_bytes for part in parts),
        num_failures=max(part.num_failures for part in parts),
        alpha_s=max(part.alpha_s for part in parts),
        beta_bytes_per_s=min((part.beta_bytes_per_s for part in parts if part.beta_bytes_per_s), default=0.0),
        num_connections=max(part.num_connections for part in parts),
        note=next(filter(None, (part.note or part.last_failure for part in parts)), ""),
    )
