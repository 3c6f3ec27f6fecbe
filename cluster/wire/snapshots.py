"""What an instance reports about itself."""

from dataclasses import asdict

from cluster.pb import baton_pb2, instance_pb2
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import HandoverSnapshot, InstanceSnapshot, LinkSnapshot
from cluster.wire.values import holder_from_pb, holder_to_pb


def snapshot_to_pb(snapshot: InstanceSnapshot) -> instance_pb2.Snapshot:
    return instance_pb2.Snapshot(
        instance=holder_to_pb(snapshot.instance),
        role=snapshot.role.value,
        status=snapshot.status.value,
        num_waiting=snapshot.num_waiting,
        num_running=snapshot.num_running,
        num_sequences=snapshot.num_sequences,
        num_blocks=snapshot.num_blocks,
        num_free_blocks=snapshot.num_free_blocks,
        num_reserved_blocks=snapshot.num_reserved_blocks,
        num_leaked_blocks=snapshot.num_leaked_blocks,
        num_waiting_tokens=snapshot.num_waiting_tokens,
        num_dispatches_seen=snapshot.num_dispatches_seen,
        links=[link_to_pb(link) for link in snapshot.links],
        handovers=[handover_to_pb(handover) for handover in snapshot.handovers],
        num_fenced=snapshot.num_fenced,
        num_bad_blocks=snapshot.num_bad_blocks,
        num_unauthenticated=snapshot.num_unauthenticated,
        num_malformed=snapshot.num_malformed,
        num_checksum_failures=snapshot.num_checksum_failures,
        prefill_tokens_per_s=snapshot.prefill_tokens_per_s,
        decode_step_s=snapshot.decode_step_s,
    )


def snapshot_from_pb(snapshot: instance_pb2.Snapshot) -> InstanceSnapshot:
    return InstanceSnapshot(
        instance=holder_from_pb(snapshot.instance),
        role=InstanceRole(snapshot.role),
        status=InstanceStatus(snapshot.status),
        num_waiting=snapshot.num_waiting,
        num_running=snapshot.num_running,
        num_sequences=snapshot.num_sequences,
        num_blocks=snapshot.num_blocks,
        num_free_blocks=snapshot.num_free_blocks,
        num_reserved_blocks=snapshot.num_reserved_blocks,
        num_leaked_blocks=snapshot.num_leaked_blocks,
        num_waiting_tokens=snapshot.num_waiting_tokens,
        num_dispatches_seen=snapshot.num_dispatches_seen,
        links=tuple(_link_from_pb(link) for link in snapshot.links),
        handovers=tuple(_handover_from_pb(handover) for handover in snapshot.handovers),
        num_fenced=snapshot.num_fenced,
        num_bad_blocks=snapshot.num_bad_blocks,
        num_unauthenticated=snapshot.num_unauthenticated,
        num_malformed=snapshot.num_malformed,
        num_checksum_failures=snapshot.num_checksum_failures,
        prefill_tokens_per_s=snapshot.prefill_tokens_per_s,
        decode_step_s=snapshot.decode_step_s,
    )


def handover_to_pb(handover: HandoverSnapshot) -> baton_pb2.HandoverStatus:
    return baton_pb2.HandoverStatus(**asdict(handover))


def _handover_from_pb(handover: baton_pb2.HandoverStatus) -> HandoverSnapshot:
    return HandoverSnapshot(
        request_id=handover.request_id,
        source=handover.source,
        target=handover.target,
        state=handover.state,
        stage=handover.stage,
        num_blocks_sent=handover.num_blocks_sent,
        num_blocks=handover.num_blocks,
        num_bytes=handover.num_bytes,
    )


def link_to_pb(link: LinkSnapshot) -> baton_pb2.LinkStatus:
    return baton_pb2.LinkStatus(
        source=link.source,
        target=link.target,
        transport=link.transport,
        num_transfers=link.num_transfers,
        num_bytes=link.num_bytes,
        num_failures=link.num_failures,
        alpha_s=link.alpha_s,
        beta_bytes_per_s=link.beta_bytes_per_s,
        note=link.note,
        num_connections=link.num_connections,
    )


def _link_from_pb(link: baton_pb2.LinkStatus) -> LinkSnapshot:
    return LinkSnapshot(
        source=link.source,
        target=link.target,
        transport=link.transport,
        num_transfers=link.num_transfers,
        num_bytes=link.num_bytes,
        num_failures=link.num_failures,
        alpha_s=link.alpha_s,
        beta_bytes_per_s=link.beta_bytes_per_s,
        note=link.note,
        num_connections=link.num_connections,
    )
