"""What operators do to a cluster that serves: move a request, drain an instance, give it another role.

A refusal says why and changes nothing. Progress is told as it comes, and again while there is none; nothing here polls.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import Protocol

from cluster.messages import FrontMessage, Holder, SetRole
from cluster.role import InstanceRole
from router.errors import DeadlineExceeded, InvalidRequest, OperationRefused
from router.ledger import CannotMove, Entry, Ledger, Note, Place, Step
from router.observer import RouterObserver
from router.policies import DISPATCH_POLICIES, InstanceLoad
from router.policies.virtual_usage import has_room
from router.rescheduler import Rescheduler
from router.scheduler import Member, Scheduler
from router.timeouts import MIGRATE_TIMEOUT_S, PROGRESS_INTERVAL_S, SET_ROLE_TIMEOUT_S


@dataclass(frozen=True, slots=True, kw_only=True)
class Migrated:
    source: str
    target: str


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainProgress:
    """`num_requests` are still there; `num_moved` since it began."""

    num_requests: int
    num_moved: int
    done: bool = False


class Hands(Protocol):
    """What the router does for operators."""

    @property
    def instance_names(self) -> Iterable[str]:
        """Of all that there should be, those that do not answer included."""

    def hand_over(self, request_id: str, to: Place, reason: str) -> None:
        """Raises CannotMove."""

    def tell(self, holder: Holder, message: FrontMessage) -> None: ...

    def on_members_changed(self) -> None:
        """There are more or fewer to dispatch to."""


class Operations(RouterObserver):
    def __init__(self, ledger: Ledger, scheduler: Scheduler, hands: Hands, rescheduler: Rescheduler) -> None:
        self._ledger = ledger
        self._scheduler = scheduler
        self._hands = hands
        self._rescheduler = rescheduler
        self._roles: dict[str, InstanceRole] = {}
        self._migrations: dict[str, asyncio.Future[Note]] = {}
        self._num_drained: dict[str, int] = {}
        self._changed = asyncio.Event()

    # Operations

    def set_dispatch_policy(self, name: str) -> str:
        """From the next request on; says which it was."""
        if name not in DISPATCH_POLICIES:
            raise InvalidRequest("policy", f"there are {', '.join(DISPATCH_POLICIES)}")
        previous = self._scheduler.policy
        self._scheduler.policy = DISPATCH_POLICIES[name]()
        return next(known for known, policy in DISPATCH_POLICIES.items() if isinstance(previous, policy))

    async def migrate(self, request_id: str, instance: str) -> Migrated:
        """Returns when the request runs there. Raises OperationRefused: it has stayed where it was, or has ended."""
        target = self._member(instance)
        if self._scheduler.is_draining(target):
            raise OperationRefused(f"{instance} is being drained")
        entry = self._ledger.get(request_id)
        if entry is not None and entry.grant is None and entry.owner not in (None, target.place.holder):
            self._check_takes(target, entry)
        try:
            self._hands.hand_over(request_id, target.place, "migrate")
        except CannotMove as error:
            raise OperationRefused(str(error)) from None
        return _migrated(await self._outcome(request_id))

    async def drain(self, instance: str, reason: str = "drain") -> AsyncGenerator[DrainProgress]:
        """Ends when nothing is there any more. The instance stays drained until that is undone, whoever listens.

        What has not changed for `PROGRESS_INTERVAL_S` is said again: silence means that nobody is there.
        """
        self._check_can_be_spared(self._member(instance))
        if instance not in self._scheduler.draining:
            self._num_drained[instance] = 0
            self._scheduler.draining[instance] = reason
        self._hands.on_members_changed()
        self._rescheduler.hurry()
        told = None
        while told is None or not told.done:
            if (progress := self._progress(instance)) != told:
                told = progress
                yield progress
            elif not await self._changes():
                yield progress
            if instance not in self._scheduler.draining and not told.done:
                raise OperationRefused(f"{instance} takes requests again: the drain was undone")

    async def _changes(self) -> bool:
        """False: not in the time in which something is to be said."""
        try:
            await asyncio.wait_for(self._changed.wait(), PROGRESS_INTERVAL_S)
        except TimeoutError:
            return False
        return True

    def undo_drain(self, instance: str) -> DrainProgress:
        if instance not in self._scheduler.draining:
            raise OperationRefused(f"{instance} is not being drained")
        progress = self._progress(instance)
        del self._scheduler.draining[instance]
        self._hands.on_members_changed()
        self._announce()
        return replace(progress, done=True)

    async def flip(self, instance: str, role: str) -> AsyncGenerator[DrainProgress]:
        """Drains it first. It takes requests again once it has the role, and when nobody listens any more."""
        wanted = _role(role)
        if self._member(instance).role is wanted:
            raise OperationRefused(f"{instance} is a {wanted.value} instance already")
        was_draining, progress = instance in self._scheduler.draining, None
        try:
            async with aclosing(self.drain(instance, "flip")) as steps:
                async for progress in steps:
                    if not progress.done:
                        yield progress
            await self._set_role(instance, wanted)
        finally:
            if instance in self._scheduler.draining and not was_draining:
                self.undo_drain(instance)
        assert progress is not None
        yield progress

    def roles(self) -> dict[str, InstanceRole]:
        """Of those that answer, and those that are to have another when they answer again."""
        return {member.place.holder.instance: member.role for member in self._scheduler.members} | self._roles

    # Their parts

    def _member(self, instance: str) -> Member:
        for member in self._scheduler.members:
            if member.place.holder.instance == instance:
                return member
        names = sorted(self._hands.instance_names)
        if instance in names:
            raise OperationRefused(f"{instance} does not answer now")
        raise OperationRefused(f"there is no instance {instance!r}; there are {', '.join(names) or 'none'}")

    def _check_takes(self, target: Member, entry: Entry) -> None:
        loads = {load.holder: load for load in self._rescheduler.loads()}
        there, here = loads[target.place.holder], loads.get(entry.owner) if entry.owner else None
        if here is None:
            raise OperationRefused(f"the instance that has {entry.request_id} does not answer now")
        name = there.holder.instance
        if here.kv_layout != there.kv_layout:
            raise OperationRefused(f"{name} has another model or KV layout than {here.holder.instance}")
        if not _takes(there, here, entry.request_id):
            raise OperationRefused(f"{name} is full")

    async def _outcome(self, request_id: str) -> Note:
        """The note that ends the handover."""
        outcome = self._migrations[request_id] = asyncio.get_running_loop().create_future()
        try:
            return await asyncio.wait_for(outcome, MIGRATE_TIMEOUT_S)
        except TimeoutError:
            raise DeadlineExceeded(f"{request_id} is still being handed over") from None
        finally:
            del self._migrations[request_id]

    def _check_can_be_spared(self, member: Member) -> None:
        instance = member.place.holder.instance
        if missing := self._scheduler.missing_role(without=instance):
            raise OperationRefused(f"{instance} is the last that can {missing}: no other could take its work")
        if member.role is not InstanceRole.PREFILL and not any(self._heirs(member)):
            raise OperationRefused(f"no other instance that decodes can read the KV blocks of {instance}")

    def _heirs(self, member: Member) -> Iterator[Member]:
        for other in self._scheduler.members:
            can_decode = other.role is not InstanceRole.PREFILL and not self._scheduler.is_draining(other)
            if other is not member and can_decode and other.kv_layout == member.kv_layout:
                yield other

    def _progress(self, instance: str) -> DrainProgress:
        num_requests = sum(1 for entry in self._ledger if instance in _instances_of(entry))
        return DrainProgress(
            num_requests=num_requests,
            num_moved=self._num_drained.get(instance, 0),
            done=num_requests == 0 and all(map(_is_empty, self._lives(instance))),
        )

    def _lives(self, instance: str) -> Iterator[Member]:
        return (member for member in self._scheduler.members if member.place.holder.instance == instance)

    async def _set_role(self, instance: str, role: InstanceRole) -> None:
        self._roles[instance] = role
        for member in self._lives(instance):
            self._hands.tell(member.place.holder, SetRole(role=role))
        try:
            async with asyncio.timeout(SET_ROLE_TIMEOUT_S):
                while not any(member.role is role for member in self._lives(instance)):
                    await self._changed.wait()
        except TimeoutError:
            message = f"{instance} has not taken the role yet; it is told again when it comes back"
            raise DeadlineExceeded(message) from None

    # RouterObserver

    def on_note(self, note: Note) -> None:
        outcome = self._migrations.get(note.request_id)
        if outcome is not None and not outcome.done() and note.step in _ENDS:
            outcome.set_result(note)
        if note.step is Step.PASSED and note.reason in ("drain", "flip") and note.peer is not None:
            self._num_drained[note.peer.instance] = self._num_drained.get(note.peer.instance, 0) + 1
        self._announce()

    def on_joined(self, member: Member) -> None:
        """A role that an operator gave outlives the process that had it."""
        if role := self._roles.get(member.place.holder.instance):
            member.role = role
            self._hands.tell(member.place.holder, SetRole(role=role))
        self._announce()

    def on_snapshot(self, member: Member) -> None:
        self._announce()

    def on_lost(self, holder: Holder) -> None:
        self._announce()

    def _announce(self) -> None:
        """Whoever waits looks again."""
        self._changed.set()
        self._changed = asyncio.Event()


_ENDS = (Step.PASSED, Step.KEPT, Step.RECOVERING, Step.FINISHED, Step.FAILED)


def _migrated(note: Note) -> Migrated:
    """Raises OperationRefused for every other end."""
    match note.step:
        case Step.PASSED if note.peer is not None and note.holder is not None:
            return Migrated(source=note.peer.instance, target=note.holder.instance)
        case Step.KEPT:
            raise OperationRefused(f"{note.request_id} stays where it is: {note.reason}")
        case Step.RECOVERING:
            raise OperationRefused(f"{note.request_id} was lost meanwhile and is computed again: {note.reason}")
    raise OperationRefused(f"{note.request_id} ended before it was passed on")


def _role(name: str) -> InstanceRole:
    try:
        return InstanceRole(name)
    except ValueError:
        raise InvalidRequest("role", f"is {name!r}; should be prefill, decode or mixed") from None


def _takes(there: InstanceLoad, here: InstanceLoad, request_id: str) -> bool:
    return all(has_room(there, request) for request in here.requests if request.request_id == request_id)


def _instances_of(entry: Entry) -> set[str]:
    """Those that have it or are about to."""
    holders = (entry.owner, entry.grant.receiver if entry.grant else None)
    return {holder.instance for holder in holders if holder is not None}


def _is_empty(member: Member) -> bool:
    """As it says itself, of all that was ever sent there."""
    return member.snapshot is not None and member.snapshot.num_sequences == 0 and not member.unseen
