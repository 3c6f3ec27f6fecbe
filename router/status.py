"""The cluster as the router sees it, for people, tests and metrics."""

from collections.abc import Iterable

from cluster.pb import baton_pb2
from cluster.role import InstanceStatus
from cluster.wire.snapshots import handover_to_pb, link_to_pb
from router.config import RouterConfig
from router.connection import InstanceConnection
from router.links.links import Links
from router.links.rows import link_rows_to_pb, node_rows_to_pb
from router.scheduler import Member, Scheduler


def cluster_status(
    config: RouterConfig,
    connections: Iterable[InstanceConnection],
    scheduler: Scheduler,
    num_requests: int,
    links: Links,
) -> baton_pb2.ClusterStatus:
    status = baton_pb2.ClusterStatus(
        deployment=config.deployment,
        model=config.model_name,
        num_waiting_requests=scheduler.num_queued,
        num_running_requests=num_requests - scheduler.num_queued,
        term=config.term,
        node_links=link_rows_to_pb(links.shown_rows()),
        nodes=node_rows_to_pb(links.node_rows()),
    )
    for connection in connections:
        member = scheduler.member(connection.holder)
        status.instances.append(_instance_status(connection, member))
        if member is not None and member.snapshot is not None:
            status.links.extend(link_to_pb(link) for link in member.snapshot.links)
            status.handovers.extend(handover_to_pb(handover) for handover in member.snapshot.handovers)
        if member is not None and scheduler.is_draining(member):
            status.instances[-1].status = InstanceStatus.DRAINING.value
    return status


def _instance_status(connection: InstanceConnection, member: Member | None) -> baton_pb2.InstanceStatus:
    info = connection.info
    out = baton_pb2.InstanceStatus(
        instance=info.name,
        incarnation=info.incarnation,
        role=info.role.value,
        status=InstanceStatus.FAILED.value if member is None else InstanceStatus.STARTING.value,
        address=info.address,
        num_blocks=info.num_blocks,
        num_free_blocks=info.num_blocks,
        pid=info.pid,
        node=info.node,
    )
    if member is not None and (snapshot := member.snapshot):
        out.role, out.status = snapshot.role.value, snapshot.status.value
        out.num_waiting, out.num_running = snapshot.num_waiting, snapshot.num_running
        out.num_sequences = snapshot.num_sequences
        out.num_blocks, out.num_free_blocks = snapshot.num_blocks, snapshot.num_free_blocks
        out.num_reserved_blocks = snapshot.num_reserved_blocks
        out.num_leaked_blocks = snapshot.num_leaked_blocks
        out.num_fenced, out.num_bad_blocks = snapshot.num_fenced, snapshot.num_bad_blocks
        out.num_unauthenticated, out.num_malformed = snapshot.num_unauthenticated, snapshot.num_malformed
        out.num_checksum_failures = snapshot.num_checksum_failures
    return out
