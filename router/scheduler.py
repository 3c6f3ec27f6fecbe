"""Which waiting request goes where, and when: the queue, and a picture of every instance never older than our own acts.

Snapshots arrive some times a second; what was dispatched since is added to them here, so that two requests in the same
millisecond do not choose the same idle instance.
"""

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field

from cluster.messages import Holder
from cluster.role import InstanceRole
from cluster.snapshot import InstanceSnapshot
from router.ledger import Place
from router.policies import Decision, DispatchPolicy, InstanceView, RequestView


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """An instance that can be dispatched to.

    `unseen`: prompt tokens of the dispatches that its last snapshot did not know, by their number.
    `num_tokens`: of each request that runs here or is to.
    """

    place: Place
    role: InstanceRole
    num_blocks: int
    block_size: int
    saturation_tokens: int
    snapshot: InstanceSnapshot | None = None
    num_dispatches: int = 0
    unseen: OrderedDict[int, int] = field(default_factory=OrderedDict)
    num_tokens: dict[str, int] = field(default_factory=dict)

    def observe(self, snapshot: InstanceSnapshot) -> None:
        self.snapshot, self.role = snapshot, snapshot.role
        for number in [number for number in self.unseen if number <= snapshot.num_dispatches_seen]:
            del self.unseen[number]

    def view(self) -> InstanceView:
        known = self.snapshot.num_waiting_tokens if self.snapshot else 0
        return InstanceView(
            holder=self.place.holder,
            role=self.role,
            num_blocks=self.num_blocks,
            block_size=self.block_size,
            saturation_tokens=self.saturation_tokens,
            num_queued_tokens=known + sum(self.unseen.values()),
            num_requests=len(self.num_tokens),
            num_committed_blocks=sum(count // self.block_size + 1 for count in self.num_tokens.values()),
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """`decode` None: no handover. `number` counts the dispatches to the prefill instance."""

    request_id: str
    prefill: Place
    decode: Place | None
    number: int


class Scheduler:
    """The queue is in order of priority, then of arrival; nobody overtakes the first."""

    def __init__(self, policy: DispatchPolicy, max_queued_requests: int) -> None:
        self._policy = policy
        self._max_queued_requests = max_queued_requests
        self._queue: dict[str, RequestView] = {}
        self._members: dict[Holder, Member] = {}
        self._runs_at: dict[str, Member] = {}

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= self._max_queued_requests

    @property
    def members(self) -> Iterator[Member]:
        return iter(self._members.values())

    def member(self, holder: Holder) -> Member | None:
        return self._members.get(holder)

    def missing_role(self) -> str | None:
        """What kind of instance there is none of, if there is one."""
        if not any(member.role is not InstanceRole.DECODE for member in self._members.values()):
            return "prefill"
        if not any(member.role is not InstanceRole.PREFILL for member in self._members.values()):
            return "decode"
        return None

    def join(self, member: Member) -> None:
        self._members[member.place.holder] = member

    def leave(self, holder: Holder) -> None:
        self._members.pop(holder, None)

    def enqueue(self, request: RequestView) -> None:
        self._queue[request.request_id] = request

    def forget(self, request_id: str) -> None:
        """The request is over: it neither waits nor weighs on anybody."""
        self._queue.pop(request_id, None)
        if member := self._runs_at.pop(request_id, None):
            del member.num_tokens[request_id]

    def assign(self) -> list[Assignment]:
        """Everything that can go now, in order."""
        out = []
        for request in sorted(self._queue.values(), key=lambda request: -request.priority):
            views = [member.view() for member in self._members.values()]
            decision = self._policy.select(request, views)
            if decision is None:
                break
            del self._queue[request.request_id]
            out.append(self._commit(request, decision))
        return out

    def _commit(self, request: RequestView, decision: Decision) -> Assignment:
        prefill, decode = self._members[decision.prefill], self._members[decision.decode]
        prefill.num_dispatches += 1
        prefill.unseen[prefill.num_dispatches] = request.num_prompt_tokens
        self._runs_at[request.request_id] = decode
        decode.num_tokens[request.request_id] = request.num_prompt_tokens
        return Assignment(
            request_id=request.request_id,
            prefill=prefill.place,
            decode=decode.place if decode is not prefill else None,
            number=prefill.num_dispatches,
        )

    def grow(self, request_id: str, num_tokens: int) -> None:
        """The request has so many tokens more."""
        if member := self._runs_at.get(request_id):
            member.num_tokens[request_id] += num_tokens

    def move(self, request_id: str, holder: Holder) -> None:
        """The request stays somewhere else than was planned: a handover did not come about."""
        member = self._members.get(holder)
        if member is not None and (planned := self._runs_at.get(request_id)):
            member.num_tokens[request_id] = planned.num_tokens.pop(request_id)
            self._runs_at[request_id] = member
