"""Which epochs of which requests are over here, for messages that arrive after their end."""

from collections import OrderedDict

from cluster.messages import Epoch


class Fences:
    """Remembers the last `capacity` stops: a late dispatch or baton can only be as late as a message is."""

    def __init__(self, capacity: int = 4096) -> None:
        self._epochs: OrderedDict[str, Epoch] = OrderedDict()
        self._capacity = capacity

    def raise_to(self, request_id: str, epoch: Epoch) -> None:
        self._epochs[request_id] = max(epoch, self._epochs.get(request_id, epoch))
        self._epochs.move_to_end(request_id)
        if len(self._epochs) > self._capacity:
            self._epochs.popitem(last=False)

    def refuses(self, request_id: str, epoch: Epoch) -> str | None:
        """Why a message of that epoch comes too late, if it does."""
        fence = self._epochs.get(request_id)
        return f"stopped at epoch {fence}" if fence is not None and epoch <= fence else None
