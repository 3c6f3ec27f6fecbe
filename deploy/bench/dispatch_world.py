"""What becomes of requests when a dispatch policy chooses for them: a calculation over the router's own brain.

The scheduler, its picture of the instances, the forecast and the prefixes that are known are the router's; what they
choose among is a formula: step times of a machine, links that are shared. One prompt at a time is prefilled, its KV
leaves chunk by chunk, and decoding goes on in steps that who has arrived joins.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import process_time

from cluster.messages import Holder
from cluster.role import InstanceRole, InstanceStatus
from cluster.snapshot import InstanceSnapshot
from cluster.topology.topology import Topology
from deploy.bench.dispatch_clock import Clock, SharedLinks
from deploy.bench.dispatch_machine import Machine
from deploy.workload.request import WorkloadRequest
from router.known_prefixes import KnownPrefixes
from router.ledger import Place
from router.links.forecast import LiveForecast, Site
from router.policies import DispatchPolicy, RequestView
from router.scheduler import Assignment, Member, Scheduler

SNAPSHOT_INTERVAL_S = 0.25


@dataclass(slots=True, kw_only=True, eq=False)
class Served:
    """One request on its way; times in seconds of the calculation."""

    request: WorkloadRequest
    view: RequestView
    source: str = ""
    target: str = ""
    num_sent_tokens: int = 0
    first_token_s: float = 0.0
    second_token_s: float = 0.0
    ended_s: float = 0.0
    num_output_tokens: int = 0

    @property
    def ttft_s(self) -> float:
        return self.first_token_s - (self.request.arrival_s or 0.0)

    @property
    def gap_s(self) -> float:
        """What `second_token` means in benchmarks: from the first token to the second."""
        return self.second_token_s - self.first_token_s

    @property
    def e2el_s(self) -> float:
        return self.ended_s - (self.request.arrival_s or 0.0)


class World:
    """One instance a node; `roles` by node. Used once."""

    def __init__(
        self,
        policy: DispatchPolicy,
        topology: Topology,
        roles: dict[str, InstanceRole],
        machine: Machine,
        believed: Topology,
    ) -> None:
        """`believed`: what has been measured of the links."""
        self.clock = Clock()
        self.machine = machine
        self.links = SharedLinks(topology, self.clock)
        self.caches = KnownPrefixes()
        self.served: dict[str, Served] = {}
        self.num_over = 0
        self.peak_used = dict.fromkeys(roles, 0.0)
        self.choosing_s: list[float] = []
        self._scheduler = Scheduler(policy, max_queued_requests=1 << 30)
        self._forecast = LiveForecast()
        self._scheduler.forecast = self._forecast
        self._instances = {node: _Instance(self, node, role) for node, role in roles.items()}
        sites = {}
        for node, instance in self._instances.items():
            self._scheduler.join(instance.member)
            self.caches.join(instance.holder, machine.num_blocks)
            sites[instance.holder] = Site(node=node, token_bytes=machine.kv_bytes_per_token)
        self._forecast.learned(believed, (), sites)

    def run(self, requests: Sequence[WorkloadRequest]) -> list[Served]:
        for number, request in enumerate(requests):
            one = Served(request=request, view=view_of(str(number), request, self.machine.block_size))
            self.served[one.view.request_id] = one
            self.clock.at(request.arrival_s or 0.0, self._arrives(one.view))
        self._report()
        self.clock.run(lambda: self.num_over == len(requests))
        return list(self.served.values())

    def _arrives(self, view: RequestView) -> Callable[[], None]:
        def act() -> None:
            self._scheduler.enqueue(view)
            self.dispatch()

        return act

    def _report(self) -> None:
        for instance in self._instances.values():
            instance.report()
        self.dispatch()
        self.clock.after(SNAPSHOT_INTERVAL_S, self._report)

    def dispatch(self) -> None:
        while self._scheduler.num_queued:
            start_s = process_time()
            assignment = self._scheduler.assign_next()
            if assignment is None:
                return
            self.choosing_s.append(process_time() - start_s)
            self._begin(assignment)

    def _begin(self, assignment: Assignment) -> None:
        one = self.served[assignment.request_id]
        source = assignment.prefill.holder
        target = (assignment.decode or assignment.prefill).holder
        one.source, one.target = source.instance, target.instance
        if source != target:
            ends = source, target
            self._forecast.promised(assignment.request_id, *ends, assignment.num_missing_tokens, is_queued=True)
        used = self._instances[one.target].used()
        self.peak_used[one.target] = max(self.peak_used[one.target], used)
        self._instances[one.source].prefill(one, assignment.number)

    def num_cached(self, node: str, view: RequestView) -> int:
        return self.caches.num_blocks(self._instances[node].holder, view.block_hashes) * self.machine.block_size

    def prefilled(self, one: Served) -> None:
        self._forecast.computed(one.view.request_id)

    def arrived(self, one: Served) -> None:
        """All its KV is where it decodes."""
        target = self._instances[one.target]
        self.caches.add(target.holder, one.view.block_hashes)
        self._forecast.settled(one.view.request_id)
        self._scheduler.settle(one.view.request_id, target.holder)
        target.decode(one)
        self.dispatch()

    def grew(self, one: Served, num_tokens: int) -> None:
        self._scheduler.grow(one.view.request_id, num_tokens)

    def over(self, one: Served) -> None:
        one.ended_s = self.clock.now_s
        self.num_over += 1
        self._forecast.settled(one.view.request_id)
        self._scheduler.forget(one.view.request_id)
        self.dispatch()


class _Instance:
    def __init__(self, world: World, node: str, role: InstanceRole) -> None:
        self.holder = Holder(node, 1)
        self._world, self._clock, self._machine = world, world.clock, world.machine
        self.member = Member(
            place=Place(self.holder, "", ""),
            role=role,
            num_blocks=self._machine.num_blocks,
            block_size=self._machine.block_size,
            max_num_seqs=self._machine.max_num_seqs,
            saturation_tokens=self._machine.chunk_tokens,
        )
        self._waiting: deque[Served] = deque()
        self._is_prefilling = False
        self._num_seen = 0
        self._num_prefilled, self._prefill_s, self._step_s = 0, 0.0, 0.0
        self._joining: list[Served] = []
        self._running: list[Served] = []
        self._is_decoding = False

    def used(self) -> float:
        return self.member.view().num_committed_blocks / self._machine.num_blocks

    def report(self) -> None:
        self.member.observe(
            InstanceSnapshot(
                instance=self.holder,
                role=self.member.role,
                status=InstanceStatus.RUNNING,
                num_blocks=self._machine.num_blocks,
                num_free_blocks=0,
                num_waiting_tokens=self._num_waiting_tokens(),
                num_dispatches_seen=self._num_seen,
                prefill_tokens_per_s=self._num_prefilled / self._prefill_s if self._prefill_s else 0.0,
                decode_step_s=self._step_s,
            )
        )

    # Prefill

    def prefill(self, one: Served, number: int) -> None:
        self._waiting.append(one)
        self._num_seen = number
        if not self._is_prefilling:
            self._next_prompt()

    def _num_waiting_tokens(self) -> int:
        return sum(one.view.num_prompt_tokens for one in self._waiting)

    def _next_prompt(self) -> None:
        """The one in front stays among those that wait until it is done, as in a snapshot."""
        self._is_prefilling = bool(self._waiting)
        if not self._waiting:
            return
        one = self._waiting[0]
        num_tokens = one.view.num_prompt_tokens
        cached = min(num_tokens - 1, self._world.num_cached(self.holder.instance, one.view))
        seconds = self._machine.prefill_s(num_tokens, cached)
        self._num_prefilled += num_tokens - cached
        self._prefill_s += seconds
        sending = _Sending(self._world, one, first_token=self._world.num_cached(one.target, one.view))
        sending.computed(cached)
        for end in range(cached + self._machine.chunk_tokens, num_tokens, self._machine.chunk_tokens):
            share = (end - cached) / (num_tokens - cached)
            self._clock.after(share * seconds, lambda end=end: sending.computed(end))  # type: ignore[misc]
        self._clock.after(seconds, lambda: self._computed(one, sending))

    def _computed(self, one: Served, sending: "_Sending") -> None:
        one.first_token_s = self._clock.now_s
        one.num_output_tokens = 1
        self._world.prefilled(one)
        self._waiting.popleft()
        self.member.observe_load(self._num_waiting_tokens(), self._num_seen)
        self._world.caches.add(self.holder, one.view.block_hashes)
        if one.request.num_output_tokens == 1:
            self._world.over(one)
        else:
            sending.computed(one.view.num_prompt_tokens)
        self._next_prompt()
        self._world.dispatch()

    # Decode

    def decode(self, one: Served) -> None:
        self._joining.append(one)
        if not self._is_decoding:
            self._step()

    def _step(self) -> None:
        self._running += self._joining
        self._joining = []
        self._is_decoding = bool(self._running)
        if self._running:
            context = sum(one.view.num_prompt_tokens + one.num_output_tokens for one in self._running)
            self._step_s = self._machine.decode_step_s(len(self._running), context)
            self._clock.after(self._step_s, self._stepped)

    def _stepped(self) -> None:
        batch, self._running = self._running, []
        over: list[Served] = []
        for one in batch:
            one.num_output_tokens += 1
            if one.num_output_tokens == 2:
                one.second_token_s = self._clock.now_s
            if one.num_output_tokens % self._machine.block_size == 0:
                self._world.grew(one, self._machine.block_size)
            (over if one.num_output_tokens >= one.request.num_output_tokens else self._running).append(one)
        for one in over:
            self._world.over(one)
        self._step()


class _Sending:
    """A prompt's KV on its way: what has been computed leaves, one part after another."""

    def __init__(self, world: World, one: Served, first_token: int) -> None:
        self._world, self._one = world, one
        self._num_sent = self._num_computed = first_token
        self._is_sending = False

    def computed(self, num_tokens: int) -> None:
        self._num_computed = max(self._num_computed, num_tokens)
        if not self._is_sending:
            self._send(is_over=num_tokens == self._one.view.num_prompt_tokens)

    def _send(self, *, is_over: bool) -> None:
        num_tokens = self._num_computed - self._num_sent
        if num_tokens == 0:
            if is_over:
                self._world.arrived(self._one)
            return
        self._is_sending = True
        self._num_sent = self._num_computed
        self._one.num_sent_tokens += num_tokens
        num_bytes = num_tokens * self._world.machine.kv_bytes_per_token
        if self._one.source == self._one.target:
            num_bytes = 0
        self._world.links.send(self._one.source, self._one.target, num_bytes, self._arrived)

    def _arrived(self) -> None:
        self._is_sending = False
        self._send(is_over=self._num_sent == self._one.view.num_prompt_tokens)


def view_of(request_id: str, request: WorkloadRequest, block_size: int) -> RequestView:
    """Blocks are named after what the trace says of them: equal ids are equal prefixes up to their end."""
    num_named = min(request.num_prompt_tokens, len(request.hash_ids) * request.hash_block_tokens)
    ends = range(block_size, num_named + 1, block_size)
    hashes = tuple(b"%d:%d" % (request.hash_ids[(end - 1) // request.hash_block_tokens], end) for end in ends)
    return RequestView(request_id=request_id, num_prompt_tokens=request.num_prompt_tokens, block_hashes=hashes)
