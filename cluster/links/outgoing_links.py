"""All links from one rank to its peers, made on demand."""

import threading

from cluster.links.config import LinkConfig
from cluster.links.device_region import Region
from cluster.links.errors import TransferRefused
from cluster.links.events import SourceEvents
from cluster.links.link_end import LinkEnd, LinkKey, rank_addresses
from cluster.links.link_stats import LinkStats, LinkStatus
from cluster.links.outgoing_link import OutgoingLink
from cluster.links.piece_events import PieceEvents
from cluster.links.probe.transfer import ProbeOutcome, ProbeTransfer
from cluster.links.record_part import target_ranks
from cluster.links.sample_log import SampleLog
from cluster.messages import BlockTransfer, Holder, TransferSample
from cluster.secret import ClusterSecret
from cluster.topology.link_model import LinkModel


class OutgoingLinks:
    """At most one link to each rank of each instance. A link that ended is made anew by the next transfer."""

    def __init__(
        self,
        holder: Holder,
        region: Region,
        config: LinkConfig,
        events: SourceEvents,
        *,
        secret: ClusterSecret,
        rank: int = 0,
        num_ranks: int = 1,
    ) -> None:
        self._end = LinkEnd(holder=holder, rank=rank, num_ranks=num_ranks)
        self._region = region
        self._config = config
        self._events = events
        self._pieces = PieceEvents(events)
        self._secret = secret
        self._lock = threading.Lock()
        self._links: dict[tuple[str, int], OutgoingLink] = {}
        self._stats: dict[tuple[str, int], tuple[int, LinkStats]] = {}  # of which life of the receiver
        self._samples = SampleLog()
        self._closed = False

    def send(self, link_address: str, receiver: Holder, transfer: BlockTransfer) -> None:
        """Queues and returns. Ends in `on_sent` or `on_send_failed`; until then the blocks must not change.

        `link_address` names all ranks of the receiver: each gets those of its KV heads that this one holds.
        """
        ends = self._ends(link_address, receiver)
        if not ends:
            self._events.on_send_failed(transfer, "the receiver's ranks do not share the KV heads that this rank holds")
            return
        self._pieces.expect(transfer, len(ends))
        for end, address in ends:
            if reason := self._put(end, address, transfer):
                self._stats_of(end).failed(reason)
                self._pieces.on_send_failed(transfer, reason)

    def probe(self, link_address: str, receiver: Holder, probe: ProbeTransfer) -> None:
        """Queues behind all transfers and returns; `probe.on_end` is told how it ended, perhaps from within this.

        It goes to one rank of the receiver.
        """
        end, address = (self._ends(link_address, receiver) or [(LinkEnd(holder=receiver), link_address)])[0]
        if reason := self._put(end, address, probe):
            probe.on_end(ProbeOutcome(reason=reason))

    def num_connections(self, receiver: Holder, *, receiver_rank: int = 0) -> int:
        """Over so many a large transfer there goes, if it goes over tcp."""
        return self._stats_of(LinkEnd(holder=receiver, rank=receiver_rank)).num_connections

    def split(self, receiver: Holder, num_connections: int, *, receiver_rank: int = 0) -> None:
        """From now on large transfers there go over so many connections, if they go over tcp."""
        self._stats_of(LinkEnd(holder=receiver, rank=receiver_rank)).split(num_connections)

    def model(self, receiver: Holder, *, receiver_rank: int = 0) -> LinkModel | None:
        """What its last transfers and probes say, if there were any."""
        return self._stats_of(LinkEnd(holder=receiver, rank=receiver_rank)).model()

    def take_samples(self) -> tuple[TransferSample, ...]:
        """The transfers of blocks that arrived since this was last asked."""
        return self._samples.take()

    def status(self, target: str | None = None) -> list[LinkStatus]:
        """Of every link that there has been, or of those to the ranks of one instance."""
        with self._lock:
            known = [stats for (instance, _), (_, stats) in self._stats.items() if target in (None, instance)]
        return [stats.status() for stats in known]

    def close(self) -> None:
        """Fails what is queued or under way, and waits for the threads to end."""
        with self._lock:
            self._closed = True
            links = list(self._links.values())
        for link in links:
            link.close("links are closed")
        for link in links:
            link.join()

    def _ends(self, link_address: str, receiver: Holder) -> list[tuple[LinkEnd, str]]:
        """Those of its ranks that hold what this one holds, and where they are."""
        addresses, own = rank_addresses(link_address), self._end
        targets = target_ranks(self._region, own, len(addresses))
        return [(LinkEnd(holder=receiver, rank=rank, num_ranks=len(addresses)), addresses[rank]) for rank in targets]

    def _put(self, receiver: LinkEnd, link_address: str, transfer: BlockTransfer | ProbeTransfer) -> str:
        """Why not, or nothing."""
        key, stats = (
            LinkKey(source=self._end, receiver=receiver, address=link_address),
            self._stats_of(receiver, is_current=True),
        )
        name = (receiver.holder.instance, receiver.rank)
        with self._lock:
            if self._closed:
                return "links are closed"
            link = self._links.get(name)
            if link is not None and link.key != key:
                link.close(f"a later life of {name[0]} took its place")
            try:
                while link is None or not link.put(transfer):
                    link = self._links[name] = OutgoingLink(
                        key, self._region, self._config, stats, self._samples, self._pieces, self._secret
                    )
            except TransferRefused as refusal:
                return str(refusal)
            except (OSError, RuntimeError) as error:  # this is called from the step loop, which a link must not end
                return f"no link can be made: {error}"
        return ""

    def _stats_of(self, receiver: LinkEnd, *, is_current: bool = False) -> LinkStats:
        """Of this life of it; those of an earlier or later one stay what they are, unless this is the current one."""
        name, incarnation = (receiver.holder.instance, receiver.rank), receiver.holder.incarnation
        with self._lock:
            known = self._stats.get(name)
            if known is not None and known[0] == incarnation:
                return known[1]
            stats = known[1].successor() if known else self._new_stats(receiver)
            if is_current or known is None:
                self._stats[name] = incarnation, stats
            return stats

    def _new_stats(self, receiver: LinkEnd) -> LinkStats:
        return LinkStats(
            source=self._end.holder.instance,
            target=receiver.holder.instance,
            source_rank=self._end.rank,
            target_rank=receiver.rank,
        )
