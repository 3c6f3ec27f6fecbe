"""What handovers and recoveries leave in the metrics and in a request's timeline."""

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from cluster.messages import Holder
from cluster.pb import baton_pb2
from router.errors import UnknownRequest
from router.handover_gaps import HandoverGaps
from router.handover_metrics import HandoverMetrics
from router.ledger import Ledger, Note, Step
from router.metrics import Metrics
from router.timeline import MAX_ENDED, MAX_EVENTS, Timeline

pytestmark = pytest.mark.unit

A, B = Holder("a", 1), Holder("b", 1)


def note(step: Step, reason: str = "migrate", request_id: str = "r") -> Note:
    return Note(request_id=request_id, step=step, holder=A, peer=B, reason=reason)


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def metrics() -> HandoverMetrics:
    return HandoverMetrics(CollectorRegistry(), "tiny", Clock())


def value(metrics: HandoverMetrics, name: str, **labels: str) -> float | None:
    for family in (metrics._handovers, metrics._recoveries):
        for sample in next(iter(family.collect())).samples:
            if sample.name == name and sample.labels == {"model_name": "tiny", **labels}:
                return sample.value
    return None


def test_handovers_are_counted_by_reason_and_outcome(metrics: HandoverMetrics) -> None:
    for step in (Step.PASSED, Step.KEPT, Step.RECOVERING, Step.FINISHED, Step.FAILED):
        metrics.on_note(note(Step.GRANTED, "drain"))
        metrics.on_note(note(step, "whatever"))
    metrics.on_note(note(Step.FINISHED, "length"))
    for outcome, count in (("passed", 1), ("kept", 1), ("lost", 1), ("ended", 2)):
        assert value(metrics, "baton:handovers_total", reason="drain", outcome=outcome) == count


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("decode-0: silent for 2.0 s", "silent"),
        ("decode-0: it was taken out", "taken out"),
        ("d0 had just passed it to an instance that was lost", "lost while passing"),
        ("decode-0: UNAVAILABLE: Socket closed", "gone"),
    ],
)
def test_recoveries_are_counted_by_one_of_few_causes(metrics: HandoverMetrics, reason: str, cause: str) -> None:
    metrics.on_note(note(Step.RECOVERING, reason))
    assert value(metrics, "baton:recoveries_total", cause=cause) == 1


class Gaps:
    """Tokens at times, and what was observed."""

    def __init__(self) -> None:
        self.observed: list[tuple[str, float]] = []
        self.gaps = HandoverGaps(lambda reason, gap_s: self.observed.append((reason, round(gap_s, 6))))
        self.now_s = 0.0

    def tokens(self, num: int, gap_s: float = 0.01) -> None:
        for _ in range(num):
            self.now_s += gap_s
            self.gaps.on_tokens("r", self.now_s)


def test_the_added_gap_is_the_longest_around_the_pass_less_the_streams_own() -> None:
    case = Gaps()
    case.tokens(20)
    case.gaps.on_note(note(Step.GRANTED))
    case.tokens(5)
    case.gaps.on_note(note(Step.PASSED))
    case.tokens(1, 0.045)
    case.tokens(3)
    assert case.observed == [("migrate", 0.035)]
    case.tokens(1, 5.0)
    assert len(case.observed) == 1


def test_a_request_that_ends_right_after_the_pass_is_observed_too() -> None:
    case = Gaps()
    case.tokens(20)
    case.gaps.on_note(note(Step.GRANTED))
    case.gaps.on_note(note(Step.PASSED))
    case.tokens(1, 0.03)
    case.gaps.on_note(note(Step.FINISHED))
    assert case.observed == [("migrate", 0.02)]
    assert not case.gaps._streams


@pytest.mark.parametrize("steps", [[Step.GRANTED, Step.KEPT], [Step.GRANTED, Step.RECOVERING], [Step.PASSED]])
def test_what_was_not_passed_adds_no_gap(steps: list[Step]) -> None:
    case = Gaps()
    case.tokens(20)
    for step in steps:
        case.gaps.on_note(note(step))
    case.tokens(10, 1.0)
    assert case.observed == []


def test_prefilled_requests_have_no_gap_to_compare_with() -> None:
    case = Gaps()
    case.tokens(2)
    case.gaps.on_note(note(Step.GRANTED, "prefill"))
    case.gaps.on_note(note(Step.PASSED, "prefill"))
    case.tokens(20, 1.0)
    assert case.observed == []


def test_what_is_scraped_has_these_names() -> None:
    registry = CollectorRegistry()
    HandoverMetrics(registry, "tiny")
    text = generate_latest(registry).decode()
    for name in ("baton:handovers", "baton:handover_added_gap_seconds", "baton:recoveries"):
        assert f"# HELP {name}" in text


def test_what_instances_drop_is_counted_for_each() -> None:
    dropping = baton_pb2.InstanceStatus(instance="d", num_fenced=3, num_bad_blocks=1, num_checksum_failures=2)
    status = baton_pb2.ClusterStatus(instances=[dropping])
    text = Metrics("tiny", lambda: status).render().decode()
    assert 'baton:instance_num_fenced_total{instance="d"} 3.0' in text
    assert 'baton:instance_num_bad_blocks_total{instance="d"} 1.0' in text
    assert 'baton:instance_num_checksum_failures_total{instance="d"} 2.0' in text


def test_a_timeline_counts_from_its_first_step_and_outlives_the_request() -> None:
    clock = Clock()
    timeline = Timeline(Ledger(1), clock)
    for step in (Step.DISPATCHED, Step.GRANTED, Step.PASSED, Step.FINISHED):
        timeline.on_note(note(step))
        clock.now_s += 1.5
    assert [(event.at_s, event.note.step) for event in timeline.of("r")] == [
        (0.0, Step.DISPATCHED),
        (1.5, Step.GRANTED),
        (3.0, Step.PASSED),
        (4.5, Step.FINISHED),
    ]


def test_of_nobody_there_is_no_timeline() -> None:
    with pytest.raises(UnknownRequest):
        Timeline(Ledger(1)).of("nobody")


def test_timelines_are_bounded_in_number_and_in_length() -> None:
    timeline = Timeline(Ledger(1))
    for index in range(MAX_ENDED + 5):
        timeline.on_note(note(Step.FAILED, request_id=f"r{index}"))
    with pytest.raises(UnknownRequest):
        timeline.of("r0")
    timeline.on_note(note(Step.DISPATCHED, request_id="long"))
    for _ in range(2 * MAX_EVENTS):
        timeline.on_note(note(Step.GRANTED, request_id="long"))
    timeline.on_note(note(Step.FINISHED, request_id="long"))
    events = timeline.of("long")
    assert (len(events), events[0].note.step, events[-1].note.step) == (MAX_EVENTS, Step.DISPATCHED, Step.FINISHED)
