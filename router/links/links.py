"""The links between instances as the router knows them: learned from what they say, probed where they say nothing.

Transfers --TransferLog--> LinkBeliefs <-- Probed <-- instances <-- Probe <-- Probing; LinkBeliefs --> LiveForecast
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sized
from itertools import product

from cluster.messages import FrontMessage, Holder, Probed, Transfers
from cluster.topology.fit import fit_link
from cluster.topology.link_estimate import LinkState
from cluster.topology.schedule import Pair
from cluster.topology.topology import Topology
from router.ledger import Ledger, Note, Step
from router.links.beliefs import LinkBeliefs
from router.links.forecast import LiveForecast, Site
from router.links.live_links import LiveLinks
from router.links.places import Places
from router.links.probe_plan import ProbeConfig, Wishes
from router.links.probing import ProbeOrder, Probing
from router.links.rows import LinkRow, NodeRow, node_rows
from router.links.transfer_log import Transfer, TransferLog, as_sample
from router.observer import RouterObserver
from router.scheduler import Assignment, Member

INTERVAL_S = 0.25
FORGET_AFTER_S = 60.0
MAX_NODES_SHOWN = 32

# Unless something has happened that asks for it sooner.
_PLAN_EVERY_S = 1.0

# A new picture of all links costs as much as there are of them: of so many in a second, at most. So do plans, of the
# links between nodes that nobody probes. Few cost nothing.
_PICTURED_PER_S = 20_000
_PLANNED_PER_S = 100_000
_FEW = 1_000

log = logging.getLogger(__name__)


class Links(RouterObserver):
    """`tell` sends to an instance. Nothing happens by itself but in `run`, which calls `act` several times a second."""

    def __init__(
        self,
        ledger: Ledger,
        tell: Callable[[Holder, FrontMessage], None],
        *,
        topology: Topology | None = None,
        config: ProbeConfig | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._clock = ledger, clock
        self._beliefs = LinkBeliefs(topology)
        self._log = TransferLog(self._beliefs.topology)
        self._places = Places()
        self._probing = Probing(config or ProbeConfig(), self._places, tell)
        self.forecast = LiveForecast()
        self._suspects: set[Pair] = set()
        self._broken: set[Pair] = set()
        self._pictured_s = self._planned_s = float("-inf")
        self._is_hurried = False
        self._has_strangers = False  # nodes that are not in the picture yet
        self._is_due = asyncio.Event()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._is_due.wait(), INTERVAL_S)
            self._is_due.clear()
            try:
                self.act()
            except Exception:  # dispatching goes on with what is known
                log.exception("nothing is learned of the links in this round")

    def act(self) -> None:
        """Takes in what has been heard, and has probed what is to be."""
        now_s = self._clock()
        if self._has_strangers:
            self._picture_if_due(now_s)
        if self._has_strangers:
            return
        for transfer, share in self._log.advance(now_s):
            self._learn(transfer, share)
        self._beliefs.learn(now_s)
        self._probing.give_up_late(now_s)
        for node in self._places.deserted(now_s - FORGET_AFTER_S):
            self._forget(node)
        self._tell_broken()
        self._picture_if_due(now_s)
        self._plan_if_due(now_s)

    def _picture_if_due(self, now_s: float) -> None:
        if self._beliefs.is_changed and now_s - self._pictured_s >= _pause_s(self._beliefs.nodes, _PICTURED_PER_S):
            self._picture(now_s)

    def _plan_if_due(self, now_s: float) -> None:
        probed = {node for pair in self._probing.plan.running for node in pair}
        free = [node.name for node in self._beliefs.nodes if node.name not in probed]
        pause_s = _pause_s(free, _PLANNED_PER_S)
        if now_s - self._planned_s >= (pause_s if self._is_hurried else max(pause_s, _PLAN_EVERY_S)):
            self._planned_s, self._is_hurried = now_s, False
            pairs = self._places.pairs
            if probed:
                pairs = {pair: None for pair in product(free, free) if pair in pairs}
            busy = self._log.busy_nodes | {node for flow in self.forecast.flows for node in (flow.source, flow.target)}
            self._probing.begin(self._wishes(pairs, now_s), busy, now_s)

    def _hurry(self) -> None:
        """There may be something to probe now."""
        self._is_hurried = True
        self._is_due.set()

    # What is known

    def topology(self) -> Topology:
        """As believed now, with the nodes that were surveyed and have no instances."""
        return self._beliefs.whole_topology()

    def live(self) -> LiveLinks:
        """For others, who may keep it."""
        return LiveLinks(topology=self.topology(), broken=frozenset(self._broken))

    def node_rows(self) -> list[NodeRow]:
        here: dict[str, list[str]] = {}
        for member in self._places.members.values():
            here.setdefault(member.node, []).append(member.place.holder.instance)
        return node_rows(self._beliefs.nodes, here, self._beliefs.topology)

    def link_rows(self) -> list[LinkRow]:
        return self._rows(self._beliefs.rows(self._clock()), self._places.pairs)

    def shown_rows(self) -> list[LinkRow]:
        """Those that status and metrics name one by one: all; where there are many, those that are not as usual."""
        if len(self._beliefs.nodes) <= MAX_NODES_SHOWN:
            return self.link_rows()
        wrong = self._beliefs.degraded | self._broken
        return self._rows(self._beliefs.rows(self._clock(), wrong), wrong)

    def _rows(self, found: Iterable[LinkRow], pairs: Iterable[Pair]) -> list[LinkRow]:
        plan = self._probing.plan
        known = {row.pair: row for row in found}
        unknown = LinkState.UNKNOWN.value
        rows = [known.get(pair) or LinkRow(pair=pair, state=unknown) for pair in sorted({*known, *pairs})]
        return [row.probed(error, plan.is_broken(row.pair)) if (error := plan.error(row.pair)) else row for row in rows]

    # Probing

    def order(self, budget_s: float = 0.0) -> ProbeOrder:
        """All links are probed now, whatever is known of them and is under way; 0: with the usual budget."""
        self._hurry()
        return self._probing.order(budget_s)

    def withdraw(self, order: ProbeOrder) -> None:
        self._probing.withdraw(order)

    def _wishes(self, pairs: Mapping[Pair, None], now_s: float) -> Wishes:
        """As far as they are of these."""
        plan = self._probing.plan
        stale = self._beliefs.stale(now_s, pairs)
        urgent = {pair for pair in stale if self._beliefs.state(pair) is LinkState.DEGRADED or plan.error(pair)}
        return Wishes(
            asked=[pair for pair in self._probing.ordered if pair in pairs],
            unknown=[pair for pair in pairs if pair in self._suspects or not self._beliefs.knows(pair)],
            degraded=[*(pair for pair in pairs if pair in self._broken), *urgent],
            stale=[pair for pair in stale if pair not in urgent],
        )

    def _on_probed(self, holder: Holder, message: Probed, now_s: float) -> None:
        pair = self._probing.answered(holder, message)
        if pair is None:
            return
        self._hurry()  # both nodes are free for others
        self._suspects.discard(pair)
        samples = [(sample.num_bytes, sample.seconds) for sample in message.samples]
        model = fit_link(samples)
        if message.error or model is None:
            # Without a transport the link was not even made; with one, it was too busy, or broke meanwhile.
            error, has_way = message.error or "nothing was measured", bool(message.transport)
            self._probing.end(pair, now_s, error=error, has_way=has_way)
            return
        state = self._beliefs.probed(pair, message.transport, model, len(samples), message.num_connections, now_s)
        self._probing.end(pair, now_s, is_degraded=state is LinkState.DEGRADED)

    # What is heard

    def _hear(self, source: str, message: Probed | Transfers, now_s: float) -> None:
        for sample in message.samples:
            if (target := self._places.node(sample.target)) is not None:
                transfer = Transfer(
                    source=source,
                    target=target,
                    transport=sample.transport,
                    num_bytes=sample.num_bytes,
                    seconds=sample.seconds,
                    ended_s=min(now_s, sample.ended_s),
                    is_probe=isinstance(message, Probed),
                )
                self._log.tell(transfer)

    def _learn(self, transfer: Transfer, share: float) -> None:
        if transfer.is_probe:
            return
        pair = transfer.source, transfer.target
        sample = as_sample(transfer, share, self._beliefs.model(pair))
        self._beliefs.transferred(pair, transfer.transport, sample, transfer.ended_s)
        self._probing.plan.works(pair)

    def _tell_broken(self) -> None:
        broken = set(self._probing.plan.broken())
        for source, target in broken - self._broken:
            log.warning("link %s → %s: %s", source, target, self._probing.plan.error((source, target)))
        for source, target in self._broken - broken:
            log.warning("link %s → %s works again", source, target)
        if broken != self._broken:
            self._broken, self._beliefs.is_changed = broken, True

    def _picture(self, now_s: float) -> None:
        self._pictured_s, self._has_strangers = now_s, False
        topology = self._beliefs.remake_topology()
        self._log.learned(topology)
        sites = {
            holder: Site(
                node=member.node,
                token_bytes=member.block_bytes / member.block_size,
                unreachable=member.unreachable,
            )
            for holder, member in self._places.members.items()
        }
        self.forecast.learned(topology, self._broken, sites)

    def _forget(self, node: str) -> None:
        self._log.gone(node)
        self._beliefs.gone(node)
        self._probing.plan.gone(node)
        self._suspects = {pair for pair in self._suspects if node not in pair}
        self._broken = {pair for pair in self._broken if node not in pair}

    # RouterObserver

    def on_joined(self, member: Member) -> None:
        now_s = self._clock()
        self._places.come(member)
        self._beliefs.come(member.node, now_s)
        self._beliefs.is_changed = self._has_strangers = True
        self._picture_if_due(now_s)
        self._hurry()

    def on_lost(self, holder: Holder) -> None:
        now_s = self._clock()
        if self._places.leave(holder, now_s):
            self._probing.lost(holder)
            self._beliefs.is_changed = True
            self._picture_if_due(now_s)
            self._hurry()

    def on_measured(self, holder: Holder, message: Probed | Transfers) -> None:
        now_s = self._clock()
        if (source := self._places.node(holder)) is not None:
            self._hear(source, message, now_s)
        if isinstance(message, Probed):
            self._on_probed(holder, message, now_s)

    def on_assigned(self, assignment: Assignment) -> None:
        """What is there already need not travel; the ledger's note of this does not say how much that is."""
        if assignment.decode is not None:
            ends = assignment.prefill.holder, assignment.decode.holder
            self._promise(assignment.request_id, *ends, assignment.num_missing_tokens, is_queued=True)

    def on_tokens(self, request_id: str, num_tokens: int) -> None:
        self.forecast.computed(request_id)

    def on_note(self, note: Note) -> None:
        """KV is promised to a link by a grant, until the request is there or will not be."""
        if note.step is Step.DISPATCHED:
            return
        if note.step is not Step.GRANTED:
            self.forecast.settled(note.request_id)
            self._log.settled(note.request_id)
            if note.unreachable and note.holder and note.peer:
                self._suspect(note.holder, note.peer)
        elif note.reason != "prefill" and note.holder and note.peer and (entry := self._ledger.get(note.request_id)):
            num_tokens = len(entry.state.prompt_token_ids) + note.num_output_tokens
            self._promise(note.request_id, note.holder, note.peer, num_tokens)

    def _promise(
        self, request_id: str, source: Holder, target: Holder, num_tokens: int, *, is_queued: bool = False
    ) -> None:
        self.forecast.promised(request_id, source, target, num_tokens, is_queued=is_queued)
        nodes = self._places.node(source), self._places.node(target)
        if nodes[0] is not None and nodes[1] is not None:
            self._log.promised(request_id, nodes[0], nodes[1], self._clock())

    def _suspect(self, source: Holder, target: Holder) -> None:
        pair = self._places.node(source), self._places.node(target)
        if pair[0] is not None and pair[1] is not None:
            self._suspects.add((pair[0], pair[1]))
            self._hurry()


def _pause_s(nodes: Sized, links_per_s: float) -> float:
    """After what costs as much as there are links between these."""
    num_links = len(nodes) ** 2
    return num_links / links_per_s if num_links > _FEW else 0.0
