import pytest

from deploy.simulating.plot import write_rates, write_timeline
from deploy.simulating.rates import AtRate
from deploy.simulator.report import (
    HandoverSample,
    InstanceSample,
    InstanceUse,
    LinkUse,
    Report,
    TimelineSample,
)

pytestmark = pytest.mark.unit
pytest.importorskip("matplotlib")

PNG = b"\x89PNG\r\n\x1a\n"


def make_report(num_links=1):
    instances = [InstanceUse(name=f"{role}-0", role=role, node="a") for role in ("prefill", "decode")]
    links = [LinkUse(source="a", target=f"b{at}", num_bytes=100 + at) for at in range(num_links)]
    timeline = [
        TimelineSample(
            at_s=float(at),
            num_queued=at,
            instances=tuple(
                InstanceSample(name=it.name, num_waiting=1, num_running=at, kv_use=0.5) for it in instances
            ),
            link_rates={("a", f"b{at}"): 1e9 for at in range(num_links)},
        )
        for at in range(5)
    ]
    log = [
        HandoverSample(request=1, reason="prefilled", source="prefill-0", target="decode-0", began_s=1.0, ended_s=2.0),
        HandoverSample(
            request=2,
            reason="prefilled",
            source="prefill-0",
            target="decode-0",
            began_s=1.5,
            ended_s=3.0,
            error="no room",
        ),
    ]
    return Report(duration_s=4.0, instances=instances, links=links, timeline=timeline, handover_log=log)


@pytest.mark.parametrize("report", [make_report(num_links=12), Report()], ids=["full", "empty"])
def test_a_timeline_is_a_picture(report, tmp_path):
    write_timeline(tmp_path / "t.png", "what happened", report)
    assert (tmp_path / "t.png").read_bytes().startswith(PNG)


def test_attainment_against_rate_is_a_picture(tmp_path):
    found = [
        AtRate(rate=rate, attainment=1 / rate, request_goodput=1.0, attainment_of={"ttft": 1.0, "tpot": 1 / rate})
        for rate in (1.0, 2.0)
    ]
    write_rates(tmp_path / "r.png", "attainment", found, 0.9)
    assert (tmp_path / "r.png").read_bytes().startswith(PNG)
