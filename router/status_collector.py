"""The cluster's status as Prometheus gauges, made anew at each scrape."""

from collections.abc import Callable, Iterable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from cluster.pb import baton_pb2

INSTANCE_GAUGES = (
    "num_waiting",
    "num_running",
    "num_blocks",
    "num_free_blocks",
    "num_reserved_blocks",
    "num_leaked_blocks",
)
INSTANCE_COUNTERS = (
    "num_fenced",
    "num_bad_blocks",
    "num_checksum_failures",
    "num_unauthenticated",
    "num_malformed",
)
LINK_GAUGES = (("alpha_s", "baton:link_alpha_seconds"), ("beta_bytes_per_s", "baton:link_beta_bytes_per_second"))
LINK_COUNTERS = ("num_transfers", "num_bytes", "num_failures")
NODE_LINK_GAUGES = (
    ("alpha_s", "baton:node_link_alpha_seconds", "How long a transfer takes to begin, as believed"),
    ("beta_bytes_per_s", "baton:node_link_beta_bytes_per_second", "What the link gives, as believed"),
    ("age_s", "baton:node_link_age_seconds", "Since the link's last transfer or probe"),
)
NODE_GAUGES = (
    ("num_known_links", "baton:node_known_links", "To other nodes, of which the router knows something"),
    ("median_link_bytes_per_s", "baton:node_median_link_bytes_per_second", "What these give, in the median"),
    ("egress_bytes_per_s", "baton:node_egress_bytes_per_second", "What a node can send in all, where it was measured"),
    ("ingress_bytes_per_s", "baton:node_ingress_bytes_per_second", "What a node can get in all, where it was measured"),
)


class StatusCollector(Collector):
    def __init__(self, model: str, status: Callable[[], baton_pb2.ClusterStatus]) -> None:
        self._model = model
        self._status = status

    def describe(self) -> Iterable[Metric]:
        return ()  # asked at registration, when there is no status yet

    def collect(self) -> Iterator[Metric]:
        status = self._status()
        yield self._gauge("vllm:num_requests_running", "Requests in execution", status.num_running_requests)
        yield self._gauge("vllm:num_requests_waiting", "Requests in the router's queue", status.num_waiting_requests)
        num_blocks = sum(instance.num_blocks for instance in status.instances)
        num_free = sum(instance.num_free_blocks for instance in status.instances)
        usage = 1 - num_free / num_blocks if num_blocks else 0.0
        yield self._gauge("vllm:kv_cache_usage_perc", "Share of KV blocks in use; 1 is all", usage)
        yield from _instance_metrics(status.instances)
        yield from _link_metrics(status.links)
        yield from _node_link_metrics(status.node_links)
        yield from _node_metrics(status.nodes)

    def _gauge(self, name: str, text: str, value: float) -> Metric:
        family = GaugeMetricFamily(name, text, labels=("model_name",))
        family.add_metric((self._model,), value)
        return family


def _instance_metrics(instances: Iterable[baton_pb2.InstanceStatus]) -> Iterator[Metric]:
    for field in INSTANCE_GAUGES:
        family = GaugeMetricFamily(
            f"baton:instance_{field}", "Of an instance, as it last said", labels=("instance", "role", "status")
        )
        for instance in instances:
            family.add_metric((instance.instance, instance.role, instance.status), getattr(instance, field))
        yield family
    for field in INSTANCE_COUNTERS:
        counter = CounterMetricFamily(
            f"baton:instance_{field}", "Of an instance's life, as it last said", labels=("instance",)
        )
        for instance in instances:
            counter.add_metric((instance.instance,), getattr(instance, field))
        yield counter


def _link_metrics(links: Iterable[baton_pb2.LinkStatus]) -> Iterator[Metric]:
    labels = ("source", "target", "transport")
    families: list[tuple[str, GaugeMetricFamily | CounterMetricFamily]] = [
        (field, GaugeMetricFamily(name, "Measured on the link's transfers", labels=labels))
        for field, name in LINK_GAUGES
    ]
    families += [
        (field, CounterMetricFamily(f"baton:link_{field}", "Over the link's life", labels=labels))
        for field in LINK_COUNTERS
    ]
    for field, family in families:
        for link in links:
            family.add_metric((link.source, link.target, link.transport), getattr(link, field))
        yield family


def _node_link_metrics(links: Iterable[baton_pb2.NodeLinkStatus]) -> Iterator[Metric]:
    """Of a link of which nothing is known, its state only."""
    labels = ("source_node", "target_node", "transport")
    for field, name, text in NODE_LINK_GAUGES:
        family = GaugeMetricFamily(name, text, labels=labels)
        for link in links:
            if link.beta_bytes_per_s:
                family.add_metric((link.source_node, link.target_node, link.transport), getattr(link, field))
        yield family
    states = GaugeMetricFamily(
        "baton:node_link_state", "1 for the state that the link is in", labels=(*labels, "state")
    )
    for link in links:
        states.add_metric((link.source_node, link.target_node, link.transport, link.state), 1)
    yield states


def _node_metrics(nodes: Iterable[baton_pb2.NodeStatus]) -> Iterator[Metric]:
    for field, name, text in NODE_GAUGES:
        family = GaugeMetricFamily(name, text, labels=("node",))
        for node in nodes:
            if rate := getattr(node, field):
                family.add_metric((node.node,), rate)
        yield family
