"""A real cluster in processes of its own, each of which can be made to go wrong at an exact step of a handover."""

import asyncio
from collections import Counter
from collections.abc import Callable
from types import TracebackType
from typing import Any, Self

from cluster.handshake import draw_secret
from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig, InstanceInfo
from cluster.links.config import LinkConfig
from cluster.pb import baton_pb2
from cluster.role import InstanceRole
from router.client import BatonClient
from router.config import RouterConfig, RouterInfo
from router.ledger import Note
from tests.faults import child
from tests.faults.parent import Parent
from tests.integration.local_cluster import MODEL_PATH

ROUTER = "router"
# By load alone, and where two would do the first by name: prompts go to prefill-0, and then to decode-0.
ROLES = {"prefill-0": InstanceRole.PREFILL, "decode-0": InstanceRole.DECODE, "spare-0": InstanceRole.MIXED}

# Small blocks, chunks and pieces, so that even a short request moves in several; and short patience.
ENGINE = EngineConfig(
    block_size=8, kv_cache_memory_bytes=4 << 20, max_num_seqs=8, max_num_batched_tokens=48, num_threads=1
)
HANDOVER = HandoverConfig(lease_s=2.0, reserve_timeout_s=1.0, piece_bytes=64 << 10)
LINKS = LinkConfig(transport="tcp", transfer_timeout_s=2.0)
GRACE_S = 4.0


class FaultyCluster:
    """`async with FaultyCluster() as cluster`: three instances and a router serve when entered."""

    def __init__(self, roles: dict[str, InstanceRole] = ROLES) -> None:
        self._roles = roles
        self._secret = draw_secret()
        self._term = 0
        self._grpc_port = 0
        self.parties: dict[str, Parent] = {}
        self.infos: dict[str, InstanceInfo] = {}
        self.notes: list[Note] = []
        self.events: list[tuple[Any, ...]] = []
        self._num_snapshots: Counter[str] = Counter()
        self._status = baton_pb2.ClusterStatus()
        self._something = asyncio.Event()

    async def __aenter__(self) -> Self:
        try:
            await self.revive()
        except BaseException:
            self._close()
            raise
        self.client = BatonClient(f"127.0.0.1:{self._grpc_port}", reconnect_timeout_s=20.0)
        await self.client.model_info()
        await self.until_well()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.client.close()
        self._close()

    def _close(self) -> None:
        for party in self.parties.values():
            party.close()

    # Lives

    def kill(self, name: str) -> None:
        self.parties[name].kill()

    async def revive(self) -> None:
        """As the controller does: whoever is dead lives again, and the router knows who is there."""
        dead = [name for name in (*self._roles, ROUTER) if name not in self.parties or not self.parties[name].is_alive]
        await asyncio.gather(*(self._start(name) for name in dead))
        self.parties[ROUTER].tell("instances", list(self.infos.values()))

    async def _start(self, name: str) -> None:
        if name in self.parties:
            self.parties[name].close()
        if name == ROUTER:
            await self._start_router()
            return
        config = InstanceConfig(
            name=name,
            role=self._roles[name],
            model_path=str(MODEL_PATH),
            secret=self._secret,
            engine=ENGINE,
            links=LINKS,
            handover=HANDOVER,
            grace_s=GRACE_S,
        )
        self.parties[name] = Parent(child.run_instance, config, self._hear)
        self.infos[name] = await self.parties[name].started()

    async def _start_router(self) -> None:
        self._term += 1
        config = RouterConfig(
            name=ROUTER,
            deployment="faults",
            model_name="baton-tiny",
            model_path=str(MODEL_PATH),
            secret=self._secret,
            term=self._term,
            grpc_port=self._grpc_port,
            http_port=0,
            grace_s=GRACE_S,
            policy="least_loaded",
            retry_link_after_s=0.05,  # the next cell goes the same way
        )
        self.parties[ROUTER] = Parent(child.run_router, config, self._hear)
        info: RouterInfo = await self.parties[ROUTER].started()
        self._grpc_port = int(info.grpc_address.rpartition(":")[2])

    # News

    def _hear(self, kind: str, *details: Any) -> None:
        if kind == "status":
            self._num_snapshots[details[0]] += 1
            self._status = baton_pb2.ClusterStatus.FromString(details[1])
        elif kind == "note":
            self.notes.append(details[0])
        else:
            self.events.append((kind, *details))
        self._something.set()

    async def until(self, holds: Callable[[], bool], timeout_s: float) -> None:
        """Looks again at everything that is told. Raises TimeoutError."""
        async with asyncio.timeout(timeout_s):
            while not holds():
                self._something.clear()
                await self._something.wait()

    async def until_well(self, timeout_s: float = 15.0) -> None:
        """Everybody lives and has let go of everything, and has said so since this was called."""
        before = Counter(self._num_snapshots)
        self._status.Clear()

        def is_well() -> bool:
            heard = all(self._num_snapshots[name] >= before[name] + 2 for name in self._roles)
            return heard and is_empty(self._status, len(self._roles))

        try:
            await self.until(is_well, timeout_s)
        except TimeoutError:
            raise TimeoutError(f"not well after {timeout_s} s: {describe(self._status)}") from None


def is_empty(status: baton_pb2.ClusterStatus, num_instances: int) -> bool:
    is_idle = status.num_waiting_requests == status.num_running_requests == 0
    instances = [it for it in status.instances if it.status == "RUNNING"]
    return (
        is_idle
        and len(instances) == num_instances
        and all(
            it.num_sequences == it.num_reserved_blocks == it.num_leaked_blocks == 0
            and it.num_free_blocks == it.num_blocks
            for it in instances
        )
    )


def describe(status: baton_pb2.ClusterStatus) -> str:
    return f"{status.num_waiting_requests} wait, {status.num_running_requests} run; " + "; ".join(
        f"{it.instance} {it.status}: {it.num_sequences} sequences, {it.num_reserved_blocks} reserved, "
        f"{it.num_leaked_blocks} leaked, {it.num_blocks - it.num_free_blocks} used"
        for it in status.instances
    )
