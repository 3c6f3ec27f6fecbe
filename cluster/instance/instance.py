"""The body of an actor: an engine in a thread of its own, links, and the service that fronts and peers speak to.

front --Serve--> Fronts --post--> StepLoop: core.step() --effects--> Fronts, Sources, Receivers (in the event loop)
                                                                \\--> links (threads of their own)
"""

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc

from cluster.drops import Drops
from cluster.instance import handover_steps
from cluster.instance.all_ranks import AllRanks
from cluster.instance.checksums import KvChecksums
from cluster.instance.config import CoreConfig, InstanceConfig, InstanceInfo, RoleSettings
from cluster.instance.core import InstanceCore
from cluster.instance.effects import DropProbes, Effect, StartProbe, StartTransfer, ToFront, ToReceiver, ToSource
from cluster.instance.fronts import Fronts
from cluster.instance.kv_layout import kv_layout
from cluster.instance.link_events import LinkEvents
from cluster.instance.link_snapshots import link_snapshots
from cluster.instance.loading import LoadedEngine, load_engine
from cluster.instance.peers import Receivers, Sources
from cluster.instance.probing import Probing
from cluster.instance.servicer import InstanceServicer
from cluster.instance.step_loop import StepLoop
from cluster.links.link_listener import LinkListener
from cluster.links.outgoing_links import OutgoingLinks
from cluster.links.slot_table import SlotTable
from cluster.links.weights_sender import WeightsSender
from cluster.messages import Holder, Probed, Transfers
from cluster.pb import instance_pb2_grpc
from cluster.ranks.far_links import FarLinks
from cluster.role import InstanceStatus, RolePolicies, RolePolicy
from cluster.snapshot import InstanceSnapshot, LinkSnapshot
from cluster.wire.channel import CHANNEL_OPTIONS

Loader = Callable[[InstanceConfig, RolePolicy, Callable[[str], None]], LoadedEngine]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What the step loop's thread last saw of the core; `num_dispatches` by front."""

    at_s: float
    snapshot: InstanceSnapshot
    num_dispatches: dict[str, int]


class Instance:
    """`start()` once, in an event loop; then it serves until `stop()` or until `failed` is set."""

    def __init__(self, config: InstanceConfig, policies: RolePolicies, *, load: Loader = load_engine) -> None:
        self.config = config
        self.progress = "starting"
        self.failed = asyncio.Event()
        # Nanoseconds since the epoch: no two lives of an instance share one, whatever machine they are on.
        self.holder = Holder(config.name, time.time_ns())
        self._policies = policies
        self._load = load

    async def start(self) -> InstanceInfo:
        """Raises CheckpointError or ValueError for a model that cannot be served, OSError for a host not ours."""
        self._loop = asyncio.get_running_loop()
        loaded = await asyncio.to_thread(self._load, self.config, self._policies[self.config.role], self._say)
        self._assemble(loaded)
        self._server = grpc.aio.server(options=CHANNEL_OPTIONS)
        servicer = InstanceServicer(self._fronts, self._sources)
        instance_pb2_grpc.add_InstanceServicer_to_server(servicer, self._server)  # type: ignore[no-untyped-call]
        port = self._server.add_insecure_port(f"{self.config.host}:0")
        self.info = self._describe(loaded, f"{self.config.host}:{port}")
        self._steps.start()
        await self._server.start()
        self._reporting = asyncio.create_task(self._report())
        self._say("running")
        return self.info

    def _assemble(self, loaded: LoadedEngine) -> None:
        config = self.config
        self._memory = loaded.memory
        secret, drops = config.secret, Drops()
        events = LinkEvents(drops)
        self._ranks, num_ranks = loaded.ranks, config.engine.tensor_parallel_size
        self._all_ranks = None if self._ranks is None else AllRanks(events, num_ranks)
        slots = SlotTable((self._all_ranks or events).on_quiet)
        checksums = KvChecksums(loaded.region, enabled=config.links.checksum)
        self._core = InstanceCore(
            self.holder,
            config.role,
            loaded.engine,
            self._all_ranks or slots,
            self._all_ranks or checksums,
            self._core_config(loaded),
        )
        self._steps = StepLoop(self._core, self._deliver, self._look, self._on_failure)
        events.connect(self._core, self._steps)
        self._links = OutgoingLinks(
            self.holder, loaded.region, config.links, self._all_ranks or events, secret=secret, num_ranks=num_ranks
        )
        self._probing = Probing(self._links, config.links, self._on_probed)
        self._listener = LinkListener(
            self.holder,
            loaded.region,
            slots,
            config.links,
            self._all_ranks or events,
            secret=secret,
            host=config.host,
            num_ranks=num_ranks,
            weights=self._weights_sender(loaded),
        )
        self._others: list[FarLinks] = []
        if self._ranks is not None and self._all_ranks is not None:
            self._others = self._ranks.open_links(self.holder, config.links, self._all_ranks)
            self._all_ranks.connect(slots, checksums, self._links, self._others)
            self._ranks.tell_of_loss(self._on_failure)
        core, steps, vocab_size = self._core, self._steps, loaded.vocab_size
        self._fronts = Fronts(self.holder, config, core, steps, drops=drops, vocab_size=vocab_size)
        self._sources = Sources(self.holder, secret, core, steps, drops=drops, vocab_size=vocab_size)
        self._receivers = Receivers(self.holder, secret, core, steps, drops=drops)
        self._seen: Seen | None = None
        self._link_speeds: dict[str, float] = {}

    def _weights_sender(self, loaded: LoadedEngine) -> WeightsSender | None:
        """Within the budget of live moves."""
        if loaded.weights is None:
            return None
        handover, timeout_s = self.config.handover, self.config.links.transfer_timeout_s
        return WeightsSender(
            loaded.weights,
            piece_bytes=handover.piece_bytes,
            bytes_per_s=handover.bytes_per_s,
            num_ranks=self.config.engine.tensor_parallel_size,
            timeout_s=timeout_s,
        )

    def _core_config(self, loaded: LoadedEngine) -> CoreConfig:
        options, blocks = self.config.engine, loaded.engine.scheduler.block_manager
        return CoreConfig(
            handover=self.config.handover,
            grace_s=self.config.grace_s,
            retention_s=self.config.retention_s,
            record_bytes=self._block_bytes(loaded),
            roles={
                role: RoleSettings(
                    token_budget=loaded.token_budget(options, policy),
                    watermark_blocks=policy.watermark_blocks(blocks.num_blocks),
                )
                for role, policy in self._policies.items()
            },
        )

    def _say(self, progress: str) -> None:
        self.progress = progress

    def _describe(self, loaded: LoadedEngine, address: str) -> InstanceInfo:
        blocks = loaded.engine.scheduler.block_manager
        return InstanceInfo(
            name=self.holder.instance,
            incarnation=self.holder.incarnation,
            role=self.config.role,
            address=address,
            link_address=",".join([self._listener.address, *(other.link_address for other in self._others)]),
            pid=os.getpid(),
            max_num_seqs=loaded.engine.scheduler.config.max_num_seqs,
            num_blocks=blocks.num_blocks,
            block_size=blocks.block_size,
            max_model_len=loaded.max_model_len,
            saturation_tokens=loaded.saturation_tokens,
            kv_layout=kv_layout(
                self.config.model_path, self.config.engine.dtype, blocks.block_size, self._block_bytes(loaded)
            ),
            caches_prefixes=self.config.engine.enable_prefix_caching,
            node=self.config.node or socket.gethostname(),
            block_bytes=loaded.region.record_bytes,
        )

    def _block_bytes(self, loaded: LoadedEngine) -> int:
        """Of the KV in a block, on all ranks together."""
        return loaded.region.record_bytes * self.config.engine.tensor_parallel_size

    async def stop(self) -> None:
        """Fronts see their streams end, and what they had here is let go of."""
        self._reporting.cancel()
        await self._server.stop(grace=None)
        await self._receivers.close()
        await asyncio.to_thread(self._steps.stop)
        if self._ranks is not None:
            await asyncio.to_thread(self._ranks.close)
            for other in self._others:
                await asyncio.to_thread(other.close)
        await asyncio.to_thread(self._links.close)
        await asyncio.to_thread(self._listener.close)
        self._memory.close()

    # In the step loop's thread

    def _deliver(self, effects: list[Effect]) -> None:
        """Transfers start at once, from here; everything that is said goes through the event loop, in order."""
        said = []
        handover_steps.before_all(effects)
        for effect in effects:
            handover_steps.before(effect)
            if isinstance(effect, StartTransfer):
                links = self._all_ranks or self._links
                links.send(effect.grant.link_address, effect.grant.receiver, effect.transfer)
            elif isinstance(effect, StartProbe):
                self._probing.start(effect.front, effect.probe)
            elif isinstance(effect, DropProbes):
                self._probing.drop(effect.front)
            else:
                said.append(effect)
        if said:
            self._loop.call_soon_threadsafe(self._say_all, said)

    def _look(self) -> None:
        """Only this thread may look into the core; the event loop reports what was seen last."""
        numbers = {front: self._core.num_dispatches_seen(front) for front in self._fronts.names}
        self._seen = Seen(time.monotonic(), self._core.snapshot(InstanceStatus.RUNNING), numbers)

    def _on_failure(self, error: BaseException) -> None:
        self._say(f"failed: {error}")
        self._loop.call_soon_threadsafe(self.failed.set)

    # In links' threads

    def _on_probed(self, front: str, probed: Probed) -> None:
        self._loop.call_soon_threadsafe(self._fronts.tell, front, probed)

    # In the event loop

    def _say_all(self, effects: list[ToFront | ToReceiver | ToSource]) -> None:
        for effect in effects:
            match effect:
                case ToFront(front, message):
                    self._fronts.tell(front, message)
                case ToReceiver(grant, message):
                    self._receivers.tell(grant, message)
                case ToSource(source, message):
                    self._sources.tell(source, message)

    async def _report(self) -> None:
        """Snapshots are the heartbeat too, and go on through a step of any length up to `stuck_after_s`."""
        while True:
            if (seen := self._seen) is not None:
                stuck_after_s = self.config.engine.stuck_after_s
                if time.monotonic() - seen.at_s > stuck_after_s:
                    self._on_failure(TimeoutError(f"no step has ended for {stuck_after_s:g} s"))
                    return
                links = self._link_snapshots()
                self._fronts.report(seen.snapshot, seen.num_dispatches, links)
                self._tell_speeds(links)
            if samples := self._links.take_samples():
                for front in self._fronts.names:
                    self._fronts.tell(front, Transfers(samples=samples))
            await asyncio.sleep(self.config.snapshot_interval_s)

    def _tell_speeds(self, links: tuple[LinkSnapshot, ...]) -> None:
        """The core cuts what it sends by them."""
        speeds = {link.target: link.beta_bytes_per_s for link in links if link.beta_bytes_per_s > 0.0}
        if speeds != self._link_speeds:
            self._link_speeds = speeds
            self._steps.post(lambda: self._core.on_links_measured(speeds), mid_step=True)

    def _link_snapshots(self) -> tuple[LinkSnapshot, ...]:
        others = (status for other in self._others for status in other.status())
        return link_snapshots([*self._links.status(), *others])
