"""What a simulation tells, and that it always comes to an end."""

import gc
from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

from cluster.instance.fences import Fences
from cluster.role import InstanceRole
from cluster.topology.topology import Topology
from deploy.bench.metrics import summarize
from deploy.bench.outcome import Outcome
from deploy.errors import InputError
from deploy.simulator import Columns, Death, RequestRecord, simulate
from deploy.workload.request import WorkloadError, WorkloadRequest
from router.policies import ReschedulingConfig
from tests.simulated.clusters import LATENCY, Kept, cluster, network, workload

pytestmark = pytest.mark.simulated


def request(arrival_s: float = 0.0, num_prompt_tokens: int = 100, num_output_tokens: int = 10, **options):
    return WorkloadRequest(
        arrival_s=arrival_s, num_prompt_tokens=num_prompt_tokens, num_output_tokens=num_output_tokens, **options
    )


def records_of(made, requests) -> dict[int, RequestRecord]:
    kept = Kept()
    simulate(made, requests, recorder=kept)
    return kept.records


def test_a_request_alone_takes_as_long_as_its_steps_and_its_transfer():
    (record,) = records_of(cluster("pd"), [request()]).values()
    prefill_s = 4e-3 + 1e-4 * 100 + 7e-9 * 100**2
    assert record.first_token_s == pytest.approx(prefill_s)
    steps_s = LATENCY.decode_steps_s(1, 101, 9)
    transfer_s = 2 * 1e-4 + 7 * 100_000 / 2e9  # full blocks, then the last
    assert record.second_token_s - record.first_token_s == pytest.approx(transfer_s + steps_s[0])
    assert record.last_token_s - record.second_token_s == pytest.approx(steps_s[1:].sum())
    assert (record.prefilled_on, record.decoded_on, record.num_handovers) == ("p0", "d1", 1)


def test_transfers_share_what_a_node_can_send():
    made = cluster("pdd", topology=network(3, beta=1e9, alpha_s=0.0, cable=1e9), policy="least_loaded")
    alone = records_of(made, [request(num_prompt_tokens=480)])[0]
    both = records_of(made, [request(num_prompt_tokens=240), request(num_prompt_tokens=240)])
    waits = [record.second_token_s - record.first_token_s for record in both.values()]
    assert {record.decoded_on for record in both.values()} == {"d1", "d2"}
    assert max(waits) == pytest.approx(alone.second_token_s - alone.first_token_s, rel=0.02)


def test_equal_prefixes_are_computed_once():
    asked = [request(0.0, 640, hash_ids=tuple(range(10)), hash_block_tokens=64)]
    asked.append(request(5.0, 700, hash_ids=(*range(9), 77, 78), hash_block_tokens=64))
    records = records_of(cluster("pd"), asked)
    assert records[1].num_cached_tokens == 9 * 64


def test_a_prompt_that_nobody_can_hold_is_told_of():
    records = records_of(cluster("pd", shape={"num_blocks": 20}), [request(num_prompt_tokens=321), request()])
    assert records[0].error == "a prompt of 321 tokens: no instance holds more than 320, by its KV memory"
    assert not records[1].error


def test_more_output_than_the_context_takes_is_refused_as_the_router_does():
    records = records_of(cluster("pd"), [request(0.0, 4000, 97), request(0.0, 4000, 96)])
    assert records[0].error.startswith("max_tokens: is 97, but after the prompt's 4000 tokens the model's context")
    assert (records[1].error, records[1].num_output_tokens, records[1].is_cut_short) == ("", 96, False)


def test_the_router_chooses_by_the_links_that_it_believes_in():
    def with_slow(target: int) -> Topology:
        fast = network(3)
        beta = fast.beta_bytes_per_s.copy()
        beta[0, target] = 1e7
        return Topology(fast.nodes, fast.alpha_s, beta)

    def decoded_on(**options: object) -> str:
        (record,) = records_of(cluster("pdd", topology=with_slow(1), **options), [request()]).values()
        return record.decoded_on

    assert decoded_on() == "d2"
    assert decoded_on(believed=with_slow(2)) == "d1"


def test_a_full_queue_takes_nobody_as_at_the_router():
    records = records_of(cluster("pd", max_queued_requests=2, shape={"max_num_seqs": 1}), [request()] * 6)
    assert {record.error for record in records.values()} == {"", "the queue is full"}
    assert not records[0].error


def test_output_that_nobody_had_room_for_meets_no_slo():
    columns = Columns()
    asked = [request(0.0, 100, 500), request(0.0, 100, 20)]
    simulate(cluster("pd", shape={"num_blocks": 20}), asked, recorder=columns)
    figures = columns.figures(1.0, {"tpot": 1e6})
    assert (columns.num_cut_short, figures["completed"], figures["slo_attainment"]) == (1, 2, 0.5)


def test_a_prompt_that_fits_only_where_it_is_prefilled_stays_there():
    prefill, decode = cluster("pd").instances
    made = replace(cluster("pd"), instances=(prefill, replace(decode, num_blocks=5)))
    (record,) = records_of(made, [request()]).values()
    assert (record.error, record.decoded_on) == ("", "p0")


def test_without_anybody_to_decode_requests_end_with_an_error():
    made = cluster("pd", deaths=(Death(at_s=0.5, instance="d1"),))
    records = records_of(made, [request(5.0)])
    assert "no decode instance has come back" in records[0].error


def test_what_an_instance_had_when_it_died_goes_on_elsewhere():
    made = cluster("pdd", deaths=(Death(at_s=0.3, instance="d1", back_after_s=5.0),), suspect_after_s=0.2)
    records = records_of(made, [request(0.0, num_output_tokens=200), request(0.01, num_output_tokens=200)])
    moved = [record for record in records.values() if record.num_recoveries]
    assert [(record.error, record.decoded_on) for record in moved] == [("", "d2")]


def test_an_instance_that_starts_late_is_dispatched_to_from_then_on():
    made = cluster("mm", start_up_s={"m1": 1.0})
    records = records_of(made, [request(0.1 * at, 200, 20) for at in range(30)])
    assert {record.prefilled_on for record in records.values() if record.arrival_s < 1.0} == {"m0"}
    assert "m1" in {record.prefilled_on for record in records.values()}


def test_with_stages_two_steps_are_under_way_at_once():
    def duration_s(num_stages: int) -> float:
        latency = type(LATENCY)(prefill=LATENCY.prefill, decode=LATENCY.decode, num_stages=num_stages)
        made = cluster("pd", shape={"latency": latency, "saturation_tokens": 200})
        return max(record.first_token_s for record in records_of(made, [request(num_prompt_tokens=200)] * 8).values())

    assert 0.5 < duration_s(2) / duration_s(1) < 0.75


def test_everything_fails_that_can_and_nothing_is_left_over():
    made = cluster(
        "ppddd",
        shape={"num_blocks": 60, "max_num_seqs": 4},
        deaths=tuple(
            Death(at_s=0.7 * at, instance=name, back_after_s=0.9) for at, name in enumerate(("p0", "d2", "d3"))
        ),
        topology=network(5, beta=5e7, cable=1e8),
    )
    requests = workload(3, 150, 40.0)
    kept = Kept()
    report = simulate(made, requests, recorder=kept)
    assert len(kept.records) == report.num_requests == 150
    assert report.num_failed == sum(bool(record.error) for record in kept.records.values())


def test_requests_are_equal_when_seeds_are():
    made, requests = cluster("ppdd"), workload(5, 80, 30.0)
    assert records_of(made, requests) == records_of(made, requests)


def test_times_that_go_back_are_refused():
    with pytest.raises(WorkloadError, match="request 2 arrives"):
        records_of(cluster("pd"), [request(1.0), request(0.5)])


def test_a_cluster_on_nodes_that_are_not_there_is_refused():
    with pytest.raises(InputError, match="d1 is on node n1"):
        cluster("pd", topology=network(1))


def test_finished_requests_leave_nothing_behind(monkeypatch):
    monkeypatch.setattr("cluster.instance.core.Fences", partial(Fences, capacity=64))  # full soon

    class Nothing:
        def ended(self, record: RequestRecord) -> None:
            pass

        def waited(self, seconds: float, count: int) -> None:
            pass

    counts: list[int] = []

    def endless() -> Iterator[WorkloadRequest]:
        for at in range(450):
            if at in (150, 449):
                gc.collect()
                counts.append(len(gc.get_objects()))
            yield request(at * 0.05, 64, 8)

    simulate(cluster("pd", shape={"num_blocks": 64}), endless(), recorder=Nothing())
    assert counts[1] < counts[0] + 150, "300 requests more, and each has left something"


def test_columns_make_the_figures_of_the_benchmark():
    kept, columns = Kept(), Columns()
    requests = workload(8, 60, 20.0)
    simulate(cluster("m"), requests, recorder=kept)
    simulate(cluster("m"), requests, recorder=columns)
    outcomes = []
    for record in kept.records.values():
        times = [record.first_token_s]
        if record.num_output_tokens > 1:
            times += [record.second_token_s, record.last_token_s]
        outcomes.append(
            Outcome(
                num_prompt_tokens=record.num_prompt_tokens,
                start_s=record.arrival_s,
                token_times_s=times,
                num_output_tokens=record.num_output_tokens,
            )
        )
    slos_ms = {"ttft": 100.0, "tpot": 12.0}
    expected, figures = summarize(outcomes, 5.0, slos_ms), columns.figures(5.0, slos_ms)
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        if "itl" not in name:
            assert figures[name] == pytest.approx(value), name
    assert figures["slo_attainment"] == columns.attainment(slos_ms)


def test_waits_between_tokens_are_counted_to_a_thousandth():
    columns, waits_s = Columns(), np.random.default_rng(0).lognormal(-4.0, 1.0, 2000)
    for wait_s in waits_s:
        columns.waited(float(wait_s), 1)
    figures = columns.figures(1.0, {})
    for percentile in (50, 90, 99):
        assert figures[f"p{percentile}_itl_ms"] == pytest.approx(1e3 * np.percentile(waits_s, percentile), rel=0.01)
    assert figures["mean_itl_ms"] == pytest.approx(1e3 * waits_s.mean())


def test_the_timeline_shows_queues_memory_and_handovers():
    made = cluster("pd", rescheduling=ReschedulingConfig(policy="none"))
    report = simulate(made, workload(2, 40, 30.0), recorder=Kept(), sample_s=0.1)
    assert len(report.timeline) > 5
    assert {sample.name for sample in report.timeline[0].instances} == {"p0", "d1"}
    assert max(it.kv_use for sample in report.timeline for it in sample.instances) > 0.0
    passed = [handover for handover in report.handover_log if not handover.error]
    assert len(passed) == report.handovers["prefill"]["passed"]
    assert all(handover.source == "p0" and handover.target == "d1" for handover in passed)


def test_use_is_told_of_instances_and_links():
    report = simulate(cluster("pd"), [request()], recorder=Kept())
    prefill, decode = report.instances
    assert (prefill.role, prefill.num_prefill_tokens, prefill.num_steps) == (InstanceRole.PREFILL.value, 100, 1)
    assert (decode.num_decode_tokens, decode.num_steps) == (9, 9)
    assert decode.busy_s == pytest.approx(LATENCY.decode_steps_s(1, 101, 9).sum())
    (link,) = report.links
    assert (link.source, link.target, link.num_transfers, link.num_bytes) == ("n0", "n1", 2, 700_000)
    assert link.busy_s == pytest.approx(700_000 / 2e9)
