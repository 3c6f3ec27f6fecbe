"""What `baton probe` has done: every link measured once more, and how far that is."""

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from router.errors import InvalidRequest, OperationRefused
from router.links.links import Links
from router.timeouts import PROGRESS_INTERVAL_S

MAX_BUDGET_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeStep:
    """`num_done` of `num_links` were measured, or tried; `num_failed` of them could not be."""

    num_links: int
    num_done: int
    num_failed: int
    done: bool = False


async def probe_all(links: Links, budget_s: float) -> AsyncGenerator[ProbeStep]:
    """Ends when all are done. Whoever stops listening has no more of them probed.

    What has not changed for `PROGRESS_INTERVAL_S` is said again: silence means that nobody is there.
    """
    if not 0.0 <= budget_s <= MAX_BUDGET_S:
        raise InvalidRequest("budget_s", f"is {budget_s:g}; should be up to {MAX_BUDGET_S:g}, or 0 for the usual")
    order = links.order(budget_s)
    try:
        num_links = len(order.pairs)
        if num_links == 0:
            raise OperationRefused("there is no link to measure: it takes two instances")
        while order.pairs:
            yield ProbeStep(num_links=num_links, num_done=num_links - len(order.pairs), num_failed=order.num_failed)
            order.changed.clear()
            if order.pairs:
                try:
                    await asyncio.wait_for(order.changed.wait(), PROGRESS_INTERVAL_S)
                except TimeoutError:
                    continue
        links.act()  # what was found is in the picture
        yield ProbeStep(num_links=num_links, num_done=num_links, num_failed=order.num_failed, done=True)
    finally:
        links.withdraw(order)
