"""What is said about measuring links. A sample that makes no sense is left out: no estimate is to depend on it."""

import math
from collections.abc import Iterable

from cluster.messages import Probe, Probed, Transfers, TransferSample
from cluster.pb import instance_pb2
from cluster.wire.values import holder_from_pb, holder_to_pb

# Longer than any transfer lives, or its news takes.
_MAX_DURATION_S = 1e6


def probe_to_pb(probe: Probe) -> instance_pb2.Probe:
    return instance_pb2.Probe(
        number=probe.number,
        target=holder_to_pb(probe.target),
        link_address=probe.link_address,
        budget_s=probe.budget_s,
    )


def probe_from_pb(probe: instance_pb2.Probe) -> Probe:
    return Probe(
        number=probe.number,
        target=holder_from_pb(probe.target),
        link_address=probe.link_address,
        budget_s=probe.budget_s,
    )


def probed_to_pb(probed: Probed, now_s: float) -> instance_pb2.Probed:
    return instance_pb2.Probed(
        number=probed.number,
        target=holder_to_pb(probed.target),
        transport=probed.transport,
        samples=_samples_to_pb(probed.samples, now_s),
        num_connections=probed.num_connections,
        error=probed.error,
    )


def probed_from_pb(probed: instance_pb2.Probed, now_s: float) -> Probed:
    return Probed(
        number=probed.number,
        target=holder_from_pb(probed.target),
        transport=probed.transport,
        samples=_samples_from_pb(probed.samples, now_s),
        num_connections=max(1, probed.num_connections),
        error=probed.error,
    )


def transfers_to_pb(transfers: Transfers, now_s: float) -> instance_pb2.Transfers:
    return instance_pb2.Transfers(samples=_samples_to_pb(transfers.samples, now_s))


def transfers_from_pb(transfers: instance_pb2.Transfers, now_s: float) -> Transfers:
    return Transfers(samples=_samples_from_pb(transfers.samples, now_s))


def _samples_to_pb(samples: Iterable[TransferSample], now_s: float) -> list[instance_pb2.TransferSample]:
    return [
        instance_pb2.TransferSample(
            target=holder_to_pb(sample.target),
            transport=sample.transport,
            num_bytes=sample.num_bytes,
            seconds=sample.seconds,
            ended_ago_s=max(0.0, now_s - sample.ended_s),
        )
        for sample in samples
    ]


def _samples_from_pb(samples: Iterable[instance_pb2.TransferSample], now_s: float) -> tuple[TransferSample, ...]:
    return tuple(
        TransferSample(
            target=holder_from_pb(sample.target),
            transport=sample.transport,
            num_bytes=sample.num_bytes,
            seconds=sample.seconds,
            ended_s=now_s - sample.ended_ago_s,
        )
        for sample in samples
        if _makes_sense(sample)
    )


def _makes_sense(sample: instance_pb2.TransferSample) -> bool:
    durations = (sample.seconds, sample.ended_ago_s)
    return (
        bool(sample.target.instance and sample.transport and sample.num_bytes)
        and sample.seconds > 0.0
        and all(math.isfinite(each) and 0.0 <= each < _MAX_DURATION_S for each in durations)
    )
