"""What a cable lets through: a token bucket (tbf) at the end that sends."""

import subprocess

from tests.netns.hosts import Host, run

MIN_MTU_BYTES, JUMBO_MTU_BYTES = 1500, 9000
# The bucket lets so much through at once after a pause: less than a millisecond's worth, or a small transfer
# would seem to travel for free.
BURST_S = 0.75e-3
QUEUE_S = 0.05
HEADER_BYTES = 64


def mtu_bytes(bytes_per_s: float, largest: int = JUMBO_MTU_BYTES) -> int:
    """As large as the bucket allows: a processor shared by several hosts has few packets to spare."""
    return int(min(largest, max(MIN_MTU_BYTES, bytes_per_s * BURST_S)))


def shape(source: Host, target: Host, bytes_per_s: float | None, mtu: int) -> None:
    """In one direction; what is queued there stays. None: as fast as this machine is."""
    if bytes_per_s is None:
        _clear(source, target)
        return
    burst = max(mtu + HEADER_BYTES, int(bytes_per_s * BURST_S))
    limit = max(10 * burst, int(bytes_per_s * QUEUE_S))
    run("ip", "-n", source.namespace, "link", "set", source.device(target), "gso_max_size", str(min(burst, 65536)))
    _replace(source, target, "1:", f"rate {int(bytes_per_s)}bps burst {burst} limit {limit}")


def block(source: Host, target: Host) -> None:
    """Nothing gets through and nobody is told, as when a cable is pulled further down the road."""
    _replace(source, target, "2:", "rate 8kbps burst 10 limit 10")  # no packet fits into this bucket


def _replace(source: Host, target: Host, handle: str, bucket: str) -> None:
    """Another handle is another queue: what was in the old one is lost."""
    device = ["dev", source.device(target), "root", "handle", handle]
    run("tc", "-n", source.namespace, "qdisc", "replace", *device, "tbf", *bucket.split())


def _clear(source: Host, target: Host) -> None:
    command = ["tc", "-n", source.namespace, "qdisc", "del", "dev", source.device(target), "root"]
    subprocess.run(command, capture_output=True, check=False)  # there may be none
