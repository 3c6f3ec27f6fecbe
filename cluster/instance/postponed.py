"""Dispatches that cannot begin yet: blocks of an earlier turn of their request are still being written to (law 9)."""

from collections.abc import Callable
from dataclasses import replace

from cluster.instance.retained import name_of
from cluster.messages import CloseGrant, Dispatch, Held, Stop


class Postponed:
    """By request; each with the front that sent it."""

    def __init__(self) -> None:
        self._dispatches: dict[str, tuple[str, Dispatch]] = {}

    def __len__(self) -> int:
        return len(self._dispatches)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._dispatches

    def put(self, front: str, dispatch: Dispatch) -> None:
        self._dispatches[dispatch.state.request_id] = (front, dispatch)

    def take(self, is_blocked: Callable[[str], bool]) -> list[tuple[str, Dispatch]]:
        """Those that can begin now."""
        ready = [request_id for request_id in self._dispatches if not is_blocked(request_id)]
        return [self._dispatches.pop(request_id) for request_id in ready]

    def on_front_joined(self, front: str) -> list[Held]:
        """They are the new life's from now on; all of them, as it is to hear of them."""
        mine = [dispatch for sender, dispatch in self._dispatches.values() if name_of(sender) == name_of(front)]
        for dispatch in mine:
            self.put(front, replace(dispatch, state=replace(dispatch.state, front=front)))
        return [_held(dispatch) for dispatch in mine]

    def on_grant_closed(self, message: CloseGrant) -> None:
        front, dispatch = self._dispatches[message.request_id]
        if dispatch.grant is not None and dispatch.grant.epoch == message.epoch:
            self.put(front, replace(dispatch, grant=None))

    def on_stop(self, message: Stop) -> None:
        postponed = self._dispatches.get(message.request_id)
        if postponed is not None and postponed[1].epoch <= message.epoch:
            del self._dispatches[message.request_id]


def _held(dispatch: Dispatch) -> Held:
    grant_epoch = dispatch.grant.epoch if dispatch.grant else None
    return Held(state=dispatch.state, epoch=dispatch.epoch, outranks=dispatch.epoch, grant_epoch=grant_epoch)
