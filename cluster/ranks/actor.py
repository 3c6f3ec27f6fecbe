"""What the Ray actor of a rank other than 0 is: it waits to be called by rank 0, and ends with it."""

import os
import threading

from cluster.ranks.follower import Follower
from cluster.secret import ClusterSecret


class RankActor:
    """A plain class; `deploy` makes a Ray actor of it. `host`: where it listens."""

    def __init__(self, secret: ClusterSecret, host: str) -> None:
        self._secret, self._host = secret, host

    async def listen(self) -> str:
        """The address where rank 0 is to call. From then on this process lives for one life of its instance."""
        follower = Follower(self._secret, self._host)
        threading.Thread(target=self._follow, args=(follower,), name="rank", daemon=True).start()
        return follower.address

    def _follow(self, follower: Follower) -> None:
        try:
            follower.run()
        finally:
            os._exit(0)
