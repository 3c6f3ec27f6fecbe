"""Runs requests through a simulated cluster: the only place where everything meets."""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from cluster.instance.effects import Effect, StartTransfer, ToFront, ToReceiver, ToSource
from cluster.links.slot_table import Refusal
from cluster.messages import (
    BlockTransfer,
    FrontMessage,
    Holder,
    InstanceMessage,
    Pass,
    ReceiverMessage,
    Renew,
    Reserve,
    SourceMessage,
)
from cluster.snapshot import InstanceSnapshot
from deploy.simulator.clock import Clock
from deploy.simulator.cluster import Death, SimCluster, SimInstance
from deploy.simulator.front import Front
from deploy.simulator.handovers import Handovers
from deploy.simulator.instance import FRONT, Instance
from deploy.simulator.links import SimulatedLinks
from deploy.simulator.patient_gc import patient_gc
from deploy.simulator.recorder import Recorder
from deploy.simulator.refusals import Refusals
from deploy.simulator.report import InstanceSample, InstanceUse, Report, TimelineSample
from deploy.simulator.untold import Behind
from deploy.workload.request import WorkloadError, WorkloadRequest
from router.ledger import Place
from router.scheduler import Member

_RENEW_S = 1.0
_ROLES_S = 1.0
_WATCH_S = 10.0

# Longer than anything that the brain waits for by itself.
_STUCK_AFTER_S = 120.0

_PROGRESS_EVERY = 1000


def simulate(
    cluster: SimCluster,
    requests: Iterable[WorkloadRequest],
    *,
    recorder: Recorder,
    fast_forward: bool = True,
    on_progress: Callable[[int, float], None] | None = None,
    sample_s: float | None = None,
) -> Report:
    """`requests` in order of arrival; read one by one. Raises WorkloadError for times that are missing or go back.

    `on_progress(num_over, now_s)` is called now and then; `sample_s`: how often the timeline is sampled. Without
    `fast_forward` every step is made by itself, with the same outcome.
    """
    world = _World(cluster, recorder, fast_forward=fast_forward, sample_s=sample_s, on_progress=on_progress)
    with patient_gc():
        return world.run(iter(requests))


class _World:
    def __init__(
        self,
        cluster: SimCluster,
        recorder: Recorder,
        *,
        fast_forward: bool,
        sample_s: float | None,
        on_progress: Callable[[int, float], None] | None,
    ) -> None:
        self._cluster = cluster
        self._clock = Clock()
        self._fast_forward = fast_forward
        self._sample_s = sample_s
        self._on_progress = on_progress
        self._handovers = Handovers(self._clock, keeps_log=sample_s is not None)
        self._recorder = recorder
        self._front = Front(cluster, self._clock, recorder, self._handovers, self._to_instance, self._untold)
        self._links = SimulatedLinks(cluster.topology, self._clock)
        self._specs = {spec.name: spec for spec in cluster.instances}
        self._ranks = {spec.name: rank for rank, spec in enumerate(cluster.instances)}
        self._uses = {
            spec.name: InstanceUse(name=spec.name, role=spec.role.value, node=spec.node) for spec in cluster.instances
        }
        self._instances: dict[Holder, Instance] = {}
        self._peers: dict[tuple[Holder, Holder], None] = {}
        self._num_to_join = 0
        self._num_requests = 0
        self._last_arrival_s = 0.0
        self._has_more = True
        self._timeline: list[TimelineSample] = []
        self._refusals = Refusals(cluster.instances)

    def run(self, requests: Iterator[WorkloadRequest]) -> Report:
        self._start_up()
        self._take_next(requests)
        self._clock.run(self._is_over)
        now_s = self._clock.now_s
        return Report(
            duration_s=now_s,
            num_events=self._clock.num_events,
            num_requests=self._num_requests,
            num_failed=self._front.num_failed,
            instances=list(self._uses.values()),
            links=self._links.uses,
            handovers=self._handovers.counts,
            timeline=self._timeline,
            handover_log=self._handovers.log,
        )

    def _is_over(self) -> bool:
        return not self._has_more and self._front.num_over == self._num_requests

    # What is due

    def _start_up(self) -> None:
        for spec in self._cluster.instances:
            self._join_after(self._cluster.start_up_s.get(spec.name, 0.0), Holder(spec.name, 1))
        for death in self._cluster.deaths:
            self._clock.at(death.at_s, partial(self._die, death))
        self._every(self._cluster.rescheduling.interval_s, self._begin_round)
        self._every(_RENEW_S, self._renew)
        self._every(_ROLES_S, self._front.watch_roles)
        self._every(_WATCH_S, self._watch)
        if self._sample_s is not None:
            self._every(self._sample_s, self._sample)

    def _every(self, interval_s: float, act: Callable[[], None]) -> None:
        def again() -> None:
            act()
            self._clock.in_background(interval_s, again)

        self._clock.in_background(interval_s, again)

    def _take_next(self, requests: Iterator[WorkloadRequest]) -> None:
        request = next(requests, None)
        if request is None:
            self._has_more = False
            return
        if request.arrival_s is None or request.arrival_s < self._last_arrival_s:
            raise WorkloadError(
                f"request {self._num_requests + 1} arrives at {request.arrival_s} s, which is not in order"
            )
        self._last_arrival_s = request.arrival_s
        number = self._num_requests
        self._num_requests += 1
        self._clock.at(request.arrival_s, partial(self._arrive, number, request, requests))

    def _arrive(self, number: int, request: WorkloadRequest, requests: Iterator[WorkloadRequest]) -> None:
        if reason := self._refusals.reason(request):
            self._front.refuse(number, request, reason)
        else:
            self._front.arrive(number, request)
        if self._on_progress is not None and number % _PROGRESS_EVERY == 0:
            self._on_progress(self._front.num_over, self._clock.now_s)
        self._take_next(requests)

    def _begin_round(self) -> None:
        """Rescheduling looks at each request: what was passed over is told first."""
        if self._cluster.rescheduling.policy != "none":
            for instance in self._instances.values():
                instance.tell_all()
        self._clock.in_background(self._cluster.message_s, self._front.reschedule)

    def _untold(self) -> list[Behind]:
        return [untold for instance in self._instances.values() if (untold := instance.untold())]

    def _watch(self) -> None:
        """Whatever is defective, nothing waits for ever."""
        busy = any(instance.is_busy for instance in self._instances.values())
        if busy or self._num_to_join or not self._links.is_idle:
            self._front.moved_s = self._clock.now_s
        elif self._front.clients and self._clock.now_s - self._front.moved_s > _STUCK_AFTER_S:
            reason = f"nothing has happened to it for {_STUCK_AFTER_S:g} s, and nothing will"
            self._front.give_up(list(self._front.clients), reason)

    # Lives

    def _join_after(self, delay_s: float, holder: Holder) -> None:
        self._num_to_join += 1
        self._clock.at(self._clock.now_s + delay_s, partial(self._join, holder))

    def _join(self, holder: Holder) -> None:
        self._num_to_join -= 1
        spec = self._specs[holder.instance]
        instance = Instance(
            holder=holder,
            spec=spec,
            cluster=self._cluster,
            clock=self._clock,
            clients=self._front.clients,
            recorder=self._recorder,
            fast_forward=self._fast_forward,
            use=self._uses[holder.instance],
            deliver=self._deliver,
            report=self._report,
            rank=self._ranks[holder.instance],
            num_ranks=len(self._ranks),
        )
        self._instances[holder] = instance
        instance.core.on_front_joined(FRONT)
        instance.core.effects.clear()  # it holds nothing yet
        instance.core.on_links_measured(self._link_speeds(spec))
        self._front.join(_member(holder, spec))

    def _link_speeds(self, spec: SimInstance) -> dict[str, float]:
        topology = self._cluster.topology
        links = {other.name: topology.link(spec.node, other.node) for other in self._specs.values()}
        return {name: link.beta_bytes_per_s for name, link in links.items() if link and name != spec.name}

    def _die(self, death: Death) -> None:
        found = [holder for holder in self._instances if holder.instance == death.instance]
        if not found:
            return  # it is dead, or has not started
        (holder,) = found
        self._instances[holder].tell_all()
        self._instances.pop(holder).die()
        self._links.cut(holder, "connection lost")
        noticed_s = self._cluster.suspect_after_s
        if death.back_after_s is not None:
            noticed_s = min(noticed_s, death.back_after_s)
        self._clock.after(noticed_s, partial(self._lose, holder))
        if death.back_after_s is not None:
            self._join_after(death.back_after_s, Holder(holder.instance, holder.incarnation + 1))

    def _lose(self, holder: Holder) -> None:
        self._peers = {ends: None for ends in self._peers if holder not in ends}
        for instance in self._instances.values():
            instance.post(partial(instance.core.on_receiver_lost, holder, self._clock.now_s), mid_step=False)
            instance.post(partial(instance.core.on_source_lost, holder), mid_step=False)
        self._front.lose(holder, "it is dead")

    # What is said

    def _say(self, act: Callable[[], None]) -> None:
        self._clock.after(self._cluster.message_s, act)

    def _to_instance(self, holder: Holder, message: FrontMessage) -> None:
        def hear() -> None:
            if instance := self._instances.get(holder):
                instance.hear(FRONT, message)

        self._say(hear)

    def _report(self, snapshot: InstanceSnapshot) -> None:
        self._clock.in_background(self._cluster.message_s, partial(self._front.on_snapshot, snapshot))

    def _deliver(self, instance: Instance, effects: list[Effect]) -> None:
        for effect in effects:
            match effect:
                case ToFront(message=message):
                    self._say(partial(self._at_front, instance.holder, message))
                case ToReceiver(grant=grant, message=message):
                    if isinstance(message, Reserve):
                        self._peers[instance.holder, grant.receiver] = None
                    self._to_receiver(instance, grant.receiver, message)
                case ToSource(source=source, message=message):
                    self._to_source(instance, source, message)
                case StartTransfer(grant=grant, transfer=transfer):
                    self._transfer(instance, grant.receiver, transfer)

    def _at_front(self, holder: Holder, message: InstanceMessage) -> None:
        self._front.on_message(holder, message)

    def _to_receiver(self, source: Instance, receiver: Holder, message: SourceMessage) -> None:
        def hear() -> None:
            now_s = self._clock.now_s
            if instance := self._instances.get(receiver):
                instance.post(
                    partial(instance.core.on_source_message, source.holder, message, now_s),
                    request_id=getattr(message, "request_id", ""),
                    is_about_blocks=not isinstance(message, Pass),
                )
            elif not source.is_dead:
                source.post(partial(source.core.on_receiver_lost, receiver, now_s), mid_step=False)

        self._say(hear)

    def _to_source(self, receiver: Instance, source: Holder, message: ReceiverMessage) -> None:
        def hear() -> None:
            if instance := self._instances.get(source):
                instance.post(
                    partial(instance.core.on_receiver_message, receiver.holder, message, self._clock.now_s),
                    request_id=getattr(message, "request_id", ""),
                )

        self._say(hear)

    def _renew(self) -> None:
        for source, receiver in self._peers:
            if source in self._instances and (instance := self._instances.get(receiver)):
                instance.core.on_source_message(source, Renew(), self._clock.now_s)

    # What moves

    def _transfer(self, source: Instance, receiver: Holder, transfer: BlockTransfer) -> None:
        target, count = self._instances.get(receiver), len(transfer.block_ids)
        if target is None:
            self._sent(source, transfer, "connection lost")
            return
        name = (transfer.reservation, source.holder, transfer.epoch, transfer.first_block, count)
        posted = target.slots.post(*name)
        if isinstance(posted, Refusal):
            self._sent(source, transfer, posted.value)
            return
        self._links.send(
            source.holder,
            receiver,
            (source.spec.node, target.spec.node),
            float(count * source.spec.block_bytes),
            partial(self._arrived, source, target, transfer),
        )

    def _arrived(self, source: Instance, target: Instance, transfer: BlockTransfer, failure: str | None) -> None:
        """Complete, or cut off by the end of either side: nothing is posted any more."""
        name = (transfer.reservation, transfer.first_block, len(transfer.block_ids))
        if not target.is_dead:
            if failure is None and target.slots.complete(*name):
                target.post(partial(target.core.on_arrived, *name, ()), is_about_blocks=False)
            elif failure is None:
                failure = "nobody wants it any more"
            elif target.slots.abandon(*name):
                target.post(partial(target.core.on_bad, transfer.reservation, failure))
        self._sent(source, transfer, failure)

    def _sent(self, source: Instance, transfer: BlockTransfer, failure: str | None) -> None:
        if not source.is_dead:
            event = partial(source.core.on_transfer_ended, transfer, failure, self._clock.now_s)
            source.post(event, request_id=transfer.request_id)

    # What is shown

    def _sample(self) -> None:
        for instance in self._instances.values():
            instance.catch_up()
        instances = [
            InstanceSample(
                name=it.holder.instance,
                num_waiting=it.scheduler.num_waiting,
                num_running=it.scheduler.num_running,
                kv_use=it.kv_use,
            )
            for it in self._instances.values()
        ]
        self._timeline.append(
            TimelineSample(
                at_s=self._clock.now_s,
                num_queued=self._front.scheduler.num_queued,
                instances=tuple(instances),
                link_rates=self._links.rates(),
            )
        )


def _member(holder: Holder, spec: SimInstance) -> Member:
    return Member(
        place=Place(holder, holder.instance, holder.instance),
        role=spec.role,
        num_blocks=spec.num_blocks,
        block_size=spec.block_size,
        max_num_seqs=spec.max_num_seqs,
        saturation_tokens=spec.saturation_tokens,
        caches_prefixes=spec.enable_prefix_caching,
        node=spec.node,
        block_bytes=spec.block_bytes,
    )
