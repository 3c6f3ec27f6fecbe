"""What an instance reports about itself, a few times a second: all that policies ever see of it."""

from dataclasses import dataclass

from cluster.messages import Holder
from cluster.role import InstanceRole, InstanceStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSnapshot:
    """A link in use, named and measured: a transfer of n bytes takes `alpha_s + n / beta_bytes_per_s` (0: none yet).

    `note` says why the transport is not the better one, or what failed last; `num_connections`: over how many large
    transfers are split (0: it was never made).
    """

    source: str
    target: str
    transport: str
    num_transfers: int = 0
    num_bytes: int = 0
    num_failures: int = 0
    alpha_s: float = 0.0
    beta_bytes_per_s: float = 0.0
    note: str = ""
    num_connections: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HandoverSnapshot:
    """A handover under way, at its source. `stage` counts from 1 while it decodes on; the last one stands still."""

    request_id: str
    source: str
    target: str
    state: str
    stage: int
    num_blocks_sent: int
    num_blocks: int
    num_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceSnapshot:
    """Counts are sequences, blocks or tokens.

    `num_sequences` is everything the instance holds anything of, finished but unacknowledged requests included.
    `num_dispatches_seen` counts the dispatches of the front that this snapshot goes to: later ones are not in here.
    `num_fenced` counts messages of older epochs and lives, `num_bad_blocks` blocks that came damaged or for nobody.
    `num_checksum_failures` counts the transfers of which a block came damaged, whoever waited for it.
    `prefill_tokens_per_s` and `decode_step_s` are how fast its steps were of late; 0 before the first.
    `num_unauthenticated` counts callers without the cluster's secret, `num_malformed` messages that make no sense.
    """

    instance: Holder
    role: InstanceRole
    status: InstanceStatus
    num_waiting: int = 0
    num_running: int = 0
    num_sequences: int = 0
    num_blocks: int
    num_free_blocks: int
    num_reserved_blocks: int = 0
    num_leaked_blocks: int = 0
    num_waiting_tokens: int = 0
    num_dispatches_seen: int = 0
    num_fenced: int = 0
    num_bad_blocks: int = 0
    num_unauthenticated: int = 0
    num_malformed: int = 0
    num_checksum_failures: int = 0
    prefill_tokens_per_s: float = 0.0
    decode_step_s: float = 0.0
    links: tuple[LinkSnapshot, ...] = ()
    handovers: tuple[HandoverSnapshot, ...] = ()
