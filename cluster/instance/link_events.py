"""What link threads report, handed to the step loop."""

import time
from functools import partial

from cluster.drops import Drops
from cluster.instance import handover_steps
from cluster.instance.core import InstanceCore
from cluster.instance.step_loop import StepLoop
from cluster.messages import BlockTransfer


class LinkEvents:
    """Implements `SourceEvents` and `ReceiverEvents`; silent until it is connected."""

    def __init__(self, drops: Drops) -> None:
        self.on_unauthenticated = drops.on_unauthenticated
        self.on_malformed = drops.on_malformed
        self.on_damaged = drops.on_damaged

    def connect(self, core: InstanceCore, steps: StepLoop) -> None:
        self._core = core
        self._steps = steps

    def on_sent(self, transfer: BlockTransfer) -> None:
        self._steps.post(partial(self._core.on_transfer_ended, transfer, None, time.monotonic()), mid_step=True)

    def on_send_failed(self, transfer: BlockTransfer, reason: str) -> None:
        self._steps.post(partial(self._core.on_transfer_ended, transfer, reason, time.monotonic()), mid_step=True)

    def on_arrived(self, reservation: int, first_block: int, count: int, checksums: tuple[int, ...]) -> None:
        handover_steps.arrived()
        self._steps.post(partial(self._core.on_arrived, reservation, first_block, count, checksums), mid_step=True)

    def on_bad(self, reservation: int, reason: str) -> None:
        self._steps.post(partial(self._core.on_bad, reservation, reason), mid_step=True)

    def on_quiet(self, reservation: int) -> None:
        self._steps.post(partial(self._core.on_quiet, reservation), mid_step=True)
