"""One rank of a 2-rank communicator, with all that its operations need: streams, staging, a thread for its calls.

    SETTING_UP --set_up--> IDLE <--send, receive--> POSTED
        |                   |                          |
        +-------------------+---- abort, close --------+--> DYING --> DEAD

DYING: the communicator is being aborted. DEAD: that is done, and so is every call: nothing touches memory any more. A
call that never returns keeps its channel DYING for ever, and what was posted in quarantine.
"""

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any

from cluster.links.errors import LinkError, MemoryInUse
from cluster.links.nccl_device import Communicator, NcclDevice
from cluster.links.nccl_messages import STAGING_BYTES
from cluster.links.nccl_streams import Streams
from cluster.links.record_part import RecordPart
from cluster.links.worker import Death, Job, Worker

if TYPE_CHECKING:
    from cluster.links.device_region import DeviceRegion

CHECK_INTERVAL_S = 0.01  # how often a wait looks for asynchronous errors; completion ends it at once
DEATH_GRACE_S = 2.0  # NCCL's threads look for an abort twice a second; whoever fails waits for it so long

log = logging.getLogger(__name__)


class ChannelState(Enum):
    SETTING_UP = "setting up"
    IDLE = "idle"
    POSTED = "posted"
    DYING = "dying"
    DEAD = "dead"


_NEXT = {
    ChannelState.SETTING_UP: (ChannelState.IDLE, ChannelState.DYING),
    ChannelState.IDLE: (ChannelState.POSTED, ChannelState.DYING),
    ChannelState.POSTED: (ChannelState.IDLE, ChannelState.DYING),
    ChannelState.DYING: (ChannelState.DEAD,),
    ChannelState.DEAD: (),
}


class NcclChannel:
    """Used by one thread, that of its link; `close` is for others too.

    `watch` is called again and again while something is waited for, and raises LinkError to give it up. Whatever is
    given up or fails ends the channel. LinkError then says that nothing touches the blocks any more, MemoryInUse that
    something may. `hang_up` tells the peer before that is waited for: without cuMem host memory NCCL's abort returns
    when the peer has aborted too.
    """

    def __init__(self, device: NcclDevice, number: int) -> None:
        """`number` names the communicator to the peer."""
        self.number = number
        self.state = ChannelState.SETTING_UP
        self.death = Death()
        self._lock = threading.Lock()
        self._device = device
        self._communicator: Communicator | None = None
        self._streams: Streams | None = None
        self._worker = Worker(f"nccl {number}", device.bind)

    def make_unique_id(self, watch: Callable[[], object]) -> bytes:
        unique_id: bytes = self._call(lambda _: self._device.make_unique_id(), watch)
        return unique_id

    def set_up(self, unique_id: bytes, rank: int, watch: Callable[[], object]) -> None:
        """Blocks until the peer does the same."""

        def call(_: Job) -> None:
            self._communicator = self._device.init_rank(unique_id, rank)
            self._streams = Streams(self._device, STAGING_BYTES)

        self._call(call, watch)
        if not self._go(ChannelState.IDLE):
            raise LinkError("the communicator was closed while it was set up")

    def send(
        self,
        region: "DeviceRegion",
        block_ids: Sequence[int],
        messages: Sequence[int],
        watch: Callable[[], object],
        *,
        part: RecordPart | None = None,
        hang_up: Callable[[], None] = lambda: None,
    ) -> None:
        """Returns when the peer's memory has it all. `part` None: whole records."""
        each = part or RecordPart(num_bytes=region.record_bytes)
        self._operate(lambda streams, to: streams.send(to, region, each, block_ids, messages), watch, hang_up)

    def receive(
        self,
        region: "DeviceRegion",
        block_ids: Sequence[int],
        messages: Sequence[int],
        watch: Callable[[], object],
        *,
        checksum: bool,
        part: RecordPart | None = None,
        hang_up: Callable[[], None] = lambda: None,
    ) -> tuple[int, ...]:
        """The checksums of what has come of each block, when it is in place."""
        each = part or RecordPart(num_bytes=region.record_bytes)
        self._operate(
            lambda streams, source: streams.receive(source, region, each, block_ids, messages), watch, hang_up
        )
        if not checksum:
            return ()
        if each.is_whole:
            return self.checksums(region, block_ids, watch)
        found: tuple[int, ...] = self._call(lambda _: region.part_checksums(block_ids, each.rows), watch)
        return found

    def checksums(
        self, region: "DeviceRegion", block_ids: Sequence[int], watch: Callable[[], object]
    ) -> tuple[int, ...]:
        found: tuple[int, ...] = self._call(lambda _: region.checksums(block_ids), watch)
        return found

    def probe(
        self, num_bytes: int, watch: Callable[[], object], *, sends: bool, hang_up: Callable[[], None] = lambda: None
    ) -> None:
        """So many bytes from staging to the peer's, which has to do the opposite."""
        self._operate(lambda streams, peer: streams.probe(peer, num_bytes, sends=sends), watch, hang_up)

    def is_healthy(self) -> bool:
        return self.state is ChannelState.IDLE and self._communicator is not None and not self._communicator.check()

    def close(self) -> None:
        """Returns at once; `death` tells when it is done. Destroying would ask the peer, which may be gone."""
        if self._go(ChannelState.DYING):
            threading.Thread(target=self._die, name=f"nccl {self.number} dies", daemon=True).start()

    def _operate(
        self,
        enqueue: Callable[[Streams, Communicator], None],
        watch: Callable[[], object],
        hang_up: Callable[[], None],
    ) -> None:
        if not self._go(ChannelState.POSTED):
            raise LinkError(f"the communicator is {self.state.value}")
        streams, communicator = self._streams, self._communicator
        assert streams is not None
        assert communicator is not None

        def call(job: Job) -> None:
            try:
                enqueue(streams, communicator)
            except Exception as error:
                job.error = error  # before the wait below, which is over only when somebody aborts
                raise
            finally:
                streams.synchronize()

        try:
            self._call(call, watch)
        except Exception as error:  # whatever it was: something is posted
            hang_up()
            if not self.death.wait(DEATH_GRACE_S):
                log.error("communicator %d does not end: %s; its blocks stay in quarantine", self.number, error)
                raise MemoryInUse(str(error), self.death.then) from error
            raise
        self._go(ChannelState.IDLE)

    def _call(self, call: Callable[[Job], Any], watch: Callable[[], object]) -> Any:
        """What fails, or is given up, closes the channel; the call may go on until the channel is dead."""
        job = self._worker.submit(call)
        try:
            while not job.done.wait(CHECK_INTERVAL_S) and job.error is None:
                watch()
                self._check()
            if job.error is not None:
                raise LinkError(f"nccl: {job.error}") from job.error
            self._check()
        except Exception:
            self.close()
            raise
        return job.value

    def _check(self) -> None:
        """An operation that an abort cut off may look complete: so this also comes after the last wait."""
        if self.state in (ChannelState.DYING, ChannelState.DEAD):
            raise LinkError("the communicator was closed")
        if self._communicator is not None and (trouble := self._communicator.check()):
            raise LinkError(f"nccl: {trouble}")

    def _die(self) -> None:
        """Aborts, which ends what is running; a set-up that comes through after all is aborted when it does."""
        aborted = self._communicator
        if aborted is not None:
            self._abort(aborted)
        self._worker.stop()
        if self._communicator is not None and aborted is None:
            self._abort(self._communicator)
        self._streams = None
        self._go(ChannelState.DEAD)
        self.death.happen()

    def _abort(self, communicator: Communicator) -> None:
        with suppress(Exception):  # else NCCL makes a context on the first GPU, which a new thread is on
            self._device.bind()
        try:
            communicator.abort()
        except Exception as error:  # the worker's return still says when its operations are over
            log.warning("aborting communicator %d: %s", self.number, error)

    def _go(self, state: ChannelState) -> bool:
        """False: it is on its way out already, by another thread's doing."""
        with self._lock:
            if state in _NEXT[self.state]:
                self.state = state
                return True
            assert self.state in (ChannelState.DYING, ChannelState.DEAD), f"{self.state} -> {state}"
            return False
