"""What is set of a link, and what is measured of it: prints the tables of docs/measurements/links-netns.md.

`python -m tests.netns.measure_links`, as root, on a machine that does nothing else.
"""

import statistics
import sys

from cluster.topology.fit import fit_link
from tests.netns import delay_line
from tests.netns.hosts import why_not
from tests.netns.kv_flow import NUM_BYTES, Flow, best_bytes_per_s
from tests.netns.network import SWITCH, mesh, star
from tests.netns.probe_process import ProbeProcess

MEGABITS = (1000, 500, 250, 100)
ROUND_TRIPS_MS = (0.0, 0.5, 1.0, 2.0)
NUM_PROBES = 5
NUM_ROUND_TRIPS = 2  # of a transfer: the offer and its answer, the bytes and the word that they are there
FLOOD_S = 0.5


def probed(bytes_per_s: float, round_trip_ms: float) -> tuple[float, float, float]:
    """(alpha_s, beta_bytes_per_s, what KV gets): medians of several probes, the best of several transfers."""
    delays_s = {("a", "b"): round_trip_ms / 2e3} if round_trip_ms else {}
    with mesh(2, bytes_per_s=bytes_per_s, delays_s=delays_s) as network:
        processes = [ProbeProcess(host) for host in network.hosts]
        models = []
        for _ in range(NUM_PROBES):
            samples = processes[0].probe(processes[1]).samples
            models.append(fit_link([(sample.num_bytes, sample.seconds) for sample in samples]))
        for process in processes:
            process.close()
        flow = Flow(*network.hosts)
        kv = best_bytes_per_s(flow, enough=0.9 * bytes_per_s)
        flow.close()
    found = [model for model in models if model is not None]
    return (*(statistics.median(getattr(it, name) for it in found) for name in ("alpha_s", "beta_bytes_per_s")), kv)


def print_links() -> None:
    print("| rate set | round trip set | latency set | latency probed | bandwidth set | probed | KV |")
    print("|---|---|---|---|---|---|---|")
    for megabits in MEGABITS:
        for round_trip_ms in ROUND_TRIPS_MS:
            rate = megabits * 125e3
            alpha_s, beta, kv = probed(rate, round_trip_ms)
            print(
                f"| {megabits} Mbit/s | {round_trip_ms:.1f} ms | {NUM_ROUND_TRIPS * round_trip_ms:.1f} ms"
                f" | {alpha_s * 1e3:.2f} ms | {rate / 1e6:.1f} MB/s | {beta / 1e6:.1f} ({beta / rate - 1:+.1%})"
                f" | {kv / 1e6:.1f} ({kv / rate:.0%}) |",
                flush=True,
            )


def print_nodes() -> None:
    """What one host sends to two others, or gets from them, through a cable of its own."""
    with star(3, bytes_per_s=125e6) as network:
        network.shape("a", SWITCH, 62.5e6)
        network.shape(SWITCH, "b", 31.25e6)
        a, b, c = processes = [ProbeProcess(host) for host in network.hosts]
        for sources, targets, name, rate in (
            ([a], [b, c], "egress of a", 62.5e6),
            ([a, c], [b], "ingress of b", 31.25e6),
        ):
            for source in sources:
                source.begin_flood(targets, FLOOD_S)
            found = sum(source.answer() for source in sources)
            print(f"{name}: {rate / 1e6:.1f} MB/s set, {found / 1e6:.1f} measured with two flows")
        for process in processes:
            process.close()


if __name__ == "__main__":
    if reason := why_not() or delay_line.why_not():
        sys.exit(reason)
    print(f"{NUM_PROBES} probes each, their medians; KV: {NUM_BYTES >> 20} MiB at a time, the first to get nine tenths")
    print_links()
    print_nodes()
