"""Which waiting request goes where, and when: the queue, and a picture of every instance never older than our own acts.

Snapshots arrive some times a second; what was dispatched since is added to them here, so that two requests in the same
millisecond do not choose the same idle instance.
"""

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from cluster.engine.block_hash import hash_blocks
from cluster.messages import Holder
from cluster.role import InstanceRole
from cluster.snapshot import InstanceSnapshot
from router.known_prefixes import KnownPrefixes
from router.ledger import Place
from router.policies import Decision, DispatchPolicy, Forecast, InstanceView, KnowsNothing, RequestView

_REACHES_ALL: frozenset[Holder] = frozenset()


@dataclass(slots=True, kw_only=True, eq=False)
class Member:
    """An instance that can be dispatched to.

    `unseen`: prompt tokens of the dispatches that it did not know when it last spoke, by their number;
    `num_unseen_tokens` is their sum.
    `num_tokens`: of each request that runs here, is to, or has not left yet; `num_tokens_in_all` is their sum.
    `unreachable`: instances to which the way is broken. `caches_prefixes`: blocks that nobody uses are kept there.
    `node`: the host that it runs on. `block_bytes`: of the KV in a block, on one rank. `num_reliefs`: how often it may
    have got room for more, or another role.
    """

    place: Place
    role: InstanceRole
    num_blocks: int
    block_size: int
    max_num_seqs: int
    saturation_tokens: int
    kv_layout: str = ""
    caches_prefixes: bool = True
    node: str = ""
    block_bytes: int = 0
    snapshot: InstanceSnapshot | None = None
    num_waiting_tokens: int = 0
    num_dispatches: int = 0
    unseen: OrderedDict[int, int] = field(default_factory=OrderedDict)
    num_unseen_tokens: int = 0
    num_tokens: dict[str, int] = field(default_factory=dict)
    num_tokens_in_all: int = 0
    unreachable: set[Holder] = field(default_factory=set)
    num_reliefs: int = 0

    def observe(self, snapshot: InstanceSnapshot) -> None:
        self.snapshot, self.role = snapshot, snapshot.role
        self.num_reliefs += 1
        self.observe_load(snapshot.num_waiting_tokens, snapshot.num_dispatches_seen)

    def observe_load(self, num_waiting_tokens: int, num_dispatches_seen: int) -> None:
        is_relief = num_waiting_tokens < self.num_waiting_tokens
        self.num_waiting_tokens = num_waiting_tokens
        while self.unseen and next(iter(self.unseen)) <= num_dispatches_seen:
            self.num_unseen_tokens -= self.unseen.popitem(last=False)[1]
            is_relief = True
        self.num_reliefs += is_relief

    def change(self, request_id: str, num_tokens: int) -> None:
        """The request has so many tokens more here; it may be new."""
        self.num_tokens[request_id] = self.num_tokens.get(request_id, 0) + num_tokens
        self.num_tokens_in_all += num_tokens

    def drop(self, request_id: str) -> None:
        """The request is not here any more."""
        self.num_tokens_in_all -= self.num_tokens.pop(request_id)
        self.num_reliefs += 1

    def dispatched(self, num_prompt_tokens: int) -> None:
        self.num_dispatches += 1
        self.unseen[self.num_dispatches] = num_prompt_tokens
        self.num_unseen_tokens += num_prompt_tokens

    def view(self) -> InstanceView:
        snapshot = self.snapshot
        return InstanceView(  # in order: so it takes half as long
            self.place.holder,
            self.role,
            self.num_blocks,
            self.block_size,
            self.max_num_seqs,
            self.saturation_tokens,
            self.num_waiting_tokens + self.num_unseen_tokens,
            len(self.num_tokens),
            self.num_tokens_in_all // self.block_size + len(self.num_tokens),
            frozenset(self.unreachable) if self.unreachable else _REACHES_ALL,
            snapshot.prefill_tokens_per_s if snapshot else 0.0,
            snapshot.decode_step_s if snapshot else 0.0,
        )


@dataclass(frozen=True, slots=True)
class Assignment:
    """`decode` None: no handover. `number` counts the dispatches to the prefill instance.

    `num_missing_tokens`: of which the KV will probably have to travel.
    """

    request_id: str
    prefill: Place
    decode: Place | None
    number: int
    num_missing_tokens: int


class Scheduler:
    """The queue is in order of priority, then of arrival, those that ran before first; nobody overtakes the first.

    `forecast`: how long KV takes between instances, for the policy; whoever measures links sets it.
    """

    def __init__(self, policy: DispatchPolicy, max_queued_requests: int) -> None:
        self.policy = policy
        self._max_queued_requests = max_queued_requests
        self.forecast: Forecast = KnowsNothing()
        self._queue: dict[str, RequestView] = {}
        self._turns: dict[tuple[int, bool], dict[str, None]] = {}  # the same by whose turn is first, as they came
        self._recovered: set[str] = set()
        self._members: dict[Holder, Member] = {}
        self._held_by: dict[str, list[Member]] = {}
        self._known = KnownPrefixes()
        self._block_hashes: dict[str, tuple[bytes, ...]] = {}  # of those that have left the queue
        # Instances to which nothing is sent, by name, and why (drain, flip): in their later lives too.
        self.draining: dict[str, str] = {}
        self._refused_at: tuple[int, tuple[str, ...]] | None = None  # how it stood when the first could not go

    @property
    def num_queued(self) -> int:
        return len(self._queue)

    @property
    def queued(self) -> list[str]:
        return list(self._queue)

    @property
    def is_full(self) -> bool:
        return len(self._queue) >= self._max_queued_requests

    @property
    def block_size(self) -> int | None:
        """By which block hashes are to be made; None as long as no instance is there that keeps blocks for others."""
        return next((member.block_size for member in self._members.values() if member.caches_prefixes), None)

    @property
    def members(self) -> Iterator[Member]:
        return iter(self._members.values())

    def member(self, holder: Holder) -> Member | None:
        return self._members.get(holder)

    def is_draining(self, member: Member) -> bool:
        return member.place.holder.instance in self.draining

    def missing_role(self, without: str = "") -> str | None:
        """What kind of instance there is none of, if there is one; as it would be without that one."""
        names = {*self.draining, without}
        roles = {member.role for member in self._members.values() if member.place.holder.instance not in names}
        if not roles - {InstanceRole.DECODE}:
            return "prefill"
        if not roles - {InstanceRole.PREFILL}:
            return "decode"
        return None

    def join(self, member: Member) -> None:
        self._refused_at = None
        self._members[member.place.holder] = member
        self._known.join(member.place.holder, member.num_blocks if member.caches_prefixes else 0)

    def leave(self, holder: Holder) -> None:
        self._refused_at = None
        self._members.pop(holder, None)
        self._known.leave(holder)

    def enqueue(self, request: RequestView) -> None:
        self._refused_at = None
        self._queue[request.request_id] = request
        self._turns.setdefault(self._turn(request), {})[request.request_id] = None

    def enqueue_again(self, request: RequestView) -> None:
        """Nobody has it any more: it goes before what has not run yet, and what waits with it, at its priority."""
        self.forget(request.request_id)  # which has the first asked for anew
        self._recovered.add(request.request_id)
        self.enqueue(request)

    def hold(self, request_id: str, holder: Holder, num_tokens: int) -> None:
        """The request is, or is to be, at this instance too, with so many tokens; once for each instance."""
        member, held_by = self._members.get(holder), self._held_by.setdefault(request_id, [])
        if member is not None and member not in held_by:
            member.change(request_id, num_tokens)
            held_by.append(member)

    def forget(self, request_id: str) -> None:
        """The request is over: it neither waits nor weighs on anybody."""
        self._refused_at = None
        self._take_out(request_id)
        self._block_hashes.pop(request_id, None)
        for member in self._held_by.pop(request_id, ()):
            member.drop(request_id)

    def assign(self) -> list[Assignment]:
        """Everything that can go now, in order."""
        return list(iter(self.assign_next, None))

    def assign_next(self) -> Assignment | None:
        """The next that can go now; what is in flight from then on should be known before one more is asked for.

        The first that could not go is not tried again as long as nobody has got room.
        """
        if not self._queue or (self._refused_at is not None and self._refused_at == self._stands):
            return None
        request = self._queue[next(iter(self._turns[min(self._turns)]))]
        members = [member for member in self._members.values() if not self.is_draining(member)]
        request = replace(request, num_known_tokens=self._known_tokens(request, members))
        decision = self.policy.select(request, [member.view() for member in members], self.forecast)
        if decision is None:
            self._refused_at = self._stands
            return None
        self._take_out(request.request_id)
        return self._commit(request, decision)

    @property
    def _stands(self) -> tuple[int, tuple[str, ...]]:
        return sum(member.num_reliefs for member in self._members.values()), tuple(self.draining)

    def _known_tokens(self, request: RequestView, members: Iterable[Member]) -> dict[Holder, int]:
        if not request.block_hashes:
            return {}
        known = ((member, self._known.num_blocks(member.place.holder, request.block_hashes)) for member in members)
        return {member.place.holder: count * member.block_size for member, count in known if count}

    def _take_out(self, request_id: str) -> None:
        """Nothing for one that does not wait."""
        if (request := self._queue.pop(request_id, None)) is not None:
            turn = self._turn(request)
            del self._turns[turn][request_id]
            if not self._turns[turn]:
                del self._turns[turn]
        self._recovered.discard(request_id)

    def _turn(self, request: RequestView) -> tuple[int, bool]:
        return -request.priority, request.request_id not in self._recovered

    def _commit(self, request: RequestView, decision: Decision) -> Assignment:
        prefill, decode = self._members[decision.prefill], self._members[decision.decode]
        prefill.dispatched(request.num_missing_tokens(decision.prefill))
        self._block_hashes[request.request_id] = request.block_hashes
        self._held_by[request.request_id] = holders = [prefill] if decode is prefill else [prefill, decode]
        for member in holders:
            member.change(request.request_id, request.num_prompt_tokens)
            self._known.add(member.place.holder, request.block_hashes)
        return Assignment(
            request_id=request.request_id,
            prefill=prefill.place,
            decode=decode.place if decode is not prefill else None,
            number=prefill.num_dispatches,
            num_missing_tokens=request.num_missing_tokens(decision.decode),
        )

    def grow(self, request_id: str, num_tokens: int) -> None:
        """The request has so many tokens more."""
        for member in self._held_by.get(request_id, ()):
            member.change(request_id, num_tokens)

    def settle(self, request_id: str, holder: Holder) -> None:
        """The request is with this one alone: it has been handed over, or will not be."""
        for member in [it for it in self._held_by.get(request_id, ()) if it.place.holder != holder]:
            member.drop(request_id)
            self._held_by[request_id].remove(member)
        self._known.add(holder, self._block_hashes.get(request_id, ()))

    def computed(self, request_id: str, token_ids: Sequence[int]) -> None:
        """All that the request has computed where it is, output and all: the blocks stay there for others."""
        if (hashes := self._block_hashes.get(request_id)) is not None:
            for member in (it for it in self._held_by.get(request_id, ()) if it.caches_prefixes):
                more = hash_blocks(token_ids[len(hashes) * member.block_size :], member.block_size, hashes)
                self._known.add(member.place.holder, (*hashes, *more))
