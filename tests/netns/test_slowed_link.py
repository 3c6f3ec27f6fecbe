"""A link that becomes slow under way: traffic alone shows it, it is avoided, and taken back when it has recovered."""

import asyncio
import itertools

import pytest

from cluster.messages import Holder, Probed, Transfers, TransferSample
from router.links.rows import LinkRow
from router.observer import RouterObserver
from tests.netns.host_cluster import HostCluster
from tests.netns.inside import inside
from tests.netns.network import Network, mesh

pytestmark = pytest.mark.netns

BYTES_PER_S = 25e6
PLACES = {"prefill-0": "a", "decode-0": "b", "decode-1": "c"}
MAX_TRANSFERS = 10


class Reported(RouterObserver):
    """What instances have told of transfers, by who received them."""

    def __init__(self) -> None:
        self.to: dict[str, list[TransferSample]] = {"decode-0": [], "decode-1": []}

    def on_measured(self, holder: Holder, message: Probed | Transfers) -> None:
        if isinstance(message, Transfers):
            for sample in message.samples:
                self.to[sample.target.instance].append(sample)

    def since(self, begin_s: float, target: str) -> list[TransferSample]:
        """Those that began after that."""
        return [sample for sample in self.to[target] if sample.ended_s - sample.seconds > begin_s]


class Traffic:
    """Requests with prompts that nobody has seen. Two at a time: where links are alike, each goes its own way."""

    def __init__(self, cluster: HostCluster) -> None:
        self._client = cluster.client
        self._prompts = (f"Story number {number}. " + "The children went on. " * 40 for number in itertools.count())

    async def send_two(self) -> None:
        requests = [self._client.complete(next(self._prompts), max_tokens=4, ignore_eos=True) for _ in range(2)]
        await asyncio.gather(*requests)


@inside(lambda: mesh(3, bytes_per_s=BYTES_PER_S))
async def test_a_link_slowed_under_way_is_noticed_avoided_and_taken_back(network: Network) -> None:
    clock = asyncio.get_running_loop().time
    async with HostCluster(network, PLACES) as cluster:
        reported, traffic = Reported(), Traffic(cluster)
        cluster.service.router.observe(reported)

        def link(target: str) -> LinkRow:
            return next(row for row in cluster.service.router.links.link_rows() if row.pair == ("a", target))

        await cluster.until(lambda _: link("b").state == link("c").state == "good", timeout_s=30)
        num_probed = link("b").num_samples
        while not (reported.to["decode-0"] and reported.to["decode-1"]):
            await traffic.send_two()

        network.shape("a", "b", BYTES_PER_S / 10)
        slowed_s = clock()
        while link("b").state == "good" and len(reported.since(slowed_s, "decode-0")) < 3 * MAX_TRANSFERS:
            await traffic.send_two()
        noticed_s = clock()
        learned = reported.to["decode-0"][: link("b").num_samples - num_probed]
        num_slow = sum(sample.ended_s - sample.seconds > slowed_s for sample in learned)
        print(f"noticed {noticed_s - slowed_s:.1f} s later, by {num_slow} transfers:", link("b"))
        assert link("b").state == "degraded"
        assert num_slow <= MAX_TRANSFERS

        for _ in range(2):  # what goes there still, if anything, shows how slow it is
            await traffic.send_two()
        known_s = clock()
        for _ in range(4):
            await traffic.send_two()
        network.shape("a", "b", BYTES_PER_S)
        mended_s = clock()
        await cluster.until(lambda _: link("b").state == "good", timeout_s=60)
        print(f"taken back {clock() - mended_s:.1f} s later:", link("b"))
        assert not reported.since(known_s, "decode-0")
        while not reported.since(mended_s, "decode-0"):
            await traffic.send_two()
        await cluster.until_empty()
