"""All communicators of one device: made on demand, bounded in number, the least recently used closed for a new one."""

import threading
from collections import OrderedDict
from functools import partial

from cluster.links.deadline import Deadline
from cluster.links.errors import LinkError
from cluster.links.nccl_channel import DEATH_GRACE_S, ChannelState, NcclChannel
from cluster.links.nccl_device import NcclDevice

MAX_COMMUNICATORS = 32  # each takes two halves of staging, and some more memory inside of NCCL


class NoCommunicator(LinkError):
    """As many as there may be are in use, or refuse to die."""


class NcclChannels:
    """Thread-safe. What is held is in use by a link and is not closed to make room; a dying one still counts."""

    def __init__(self, device: NcclDevice, max_channels: int) -> None:
        self._device = device
        self._max_channels = max_channels
        self._changed = threading.Condition()
        self._channels: OrderedDict[NcclChannel, bool] = OrderedDict()  # -> held; least recently used first
        self._num_opened = 0

    def open(self, deadline: Deadline) -> NcclChannel:
        """A new one, held, to be set up. Raises NoCommunicator."""
        with self._changed:
            self._make_room(deadline)
            self._num_opened += 1
            channel = NcclChannel(self._device, self._num_opened)
            self._channels[channel] = True
        channel.death.then(partial(self._forget, channel))
        return channel

    def hold(self, channel: NcclChannel) -> bool:
        """False: it was closed meanwhile, or has failed, and is of no use any more."""
        with self._changed:
            usable = channel in self._channels and channel.is_healthy()
            if usable:
                self._channels[channel] = True
                self._channels.move_to_end(channel)
        if not usable:
            channel.close()
        return usable

    def release(self, channel: NcclChannel) -> None:
        with self._changed:
            if channel in self._channels:
                self._channels[channel] = False
                self._changed.notify_all()

    @property
    def num_channels(self) -> int:
        """Those that are dying included."""
        with self._changed:
            return len(self._channels)

    def _make_room(self, deadline: Deadline) -> None:
        def is_full() -> bool:
            return len(self._channels) >= self._max_channels

        if not is_full():
            return
        idle = (channel for channel, held in self._channels.items() if not held)
        if (oldest := next((channel for channel in idle if channel.state is ChannelState.IDLE), None)) is not None:
            oldest.close()
        num_ending = sum(channel.state in (ChannelState.DYING, ChannelState.DEAD) for channel in self._channels)
        if num_ending:
            self._changed.wait_for(lambda: not is_full(), min(deadline.remaining_s(), DEATH_GRACE_S))
        if is_full():
            raise NoCommunicator(
                f"all {self._max_channels} NCCL communicators are in use; {num_ending} of them do not end"
            )

    def _forget(self, channel: NcclChannel) -> None:
        with self._changed:
            self._channels.pop(channel, None)
            self._changed.notify_all()
