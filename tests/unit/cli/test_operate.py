"""The operators' commands against a router that says what the test makes it say."""

import grpc
import pytest

import deploy.client
from cluster.pb import baton_pb2
from router import timeouts as router_timeouts

pytestmark = pytest.mark.unit


def test_migrate_says_where_the_request_went(run, router):
    assert run("migrate", "r1", "--to", "decode-1") == (0, "r1 has moved from decode-0 to decode-1\n", "")
    assert router.asked == [baton_pb2.MigrateRequest(request_id="r1", instance="decode-1")]


@pytest.mark.parametrize(
    "command",
    [
        ("migrate", "r1", "--to", "decode-1"),
        ("drain", "decode-1"),
        ("drain", "decode-1", "--undo"),
        ("flip", "decode-1", "--role", "prefill"),
    ],
)
def test_a_refusal_is_its_reason_in_one_line_and_exit_code_1(run, router, command):
    router.refusal = (grpc.StatusCode.FAILED_PRECONDITION, "decode-1 is full")
    assert run(*command) == (1, "", "baton: decode-1 is full\n")


def test_drain_shows_its_progress_and_its_end(run):
    code, out, _ = run("drain", "decode-1")
    assert code == 0
    assert out.splitlines() == [
        "decode-1: 2 there, 0 moved",
        "decode-1: 1 there, 1 moved",
        "decode-1 is drained, 2 requests moved; `baton drain decode-1 --undo` undoes it",
    ]


def test_a_drain_is_undone(run, router):
    assert run("drain", "decode-1", "--undo") == (0, "decode-1 takes requests again\n", "")
    assert router.asked == [baton_pb2.DrainRequest(instance="decode-1", undo=True)]


def test_flip_shows_its_progress_and_the_new_role(run, router):
    code, out, _ = run("flip", "decode-1", "--role", "prefill")
    assert (code, out.splitlines()[-1]) == (0, "decode-1 is a prefill instance now")
    assert router.asked == [baton_pb2.FlipRequest(instance="decode-1", role="prefill")]


def test_a_role_that_there_is_not_is_the_users_mistake(run, router):
    code, _, err = run("flip", "decode-1", "--role", "cook")
    assert (code, err.count("\n")) == (2, 1)
    assert router.asked == []


def test_a_stream_that_ends_too_early_is_no_success(run, router):
    router.steps = router.steps[:1]
    code, _, err = run("drain", "decode-1")
    assert (code, err) == (1, "baton: the deployment ended before decode-1 was done\n")


def test_progress_that_is_said_again_is_shown_once(run, router):
    router.steps = [router.steps[0]] * 3 + router.steps[1:]
    assert len(run("drain", "decode-1")[1].splitlines()) == 3


@pytest.mark.parametrize("command", [("drain", "decode-1"), ("flip", "decode-1", "--role", "prefill")])
def test_a_router_that_says_nothing_any_more_is_an_error(run, router, monkeypatch, command):
    monkeypatch.setattr(deploy.client, "SILENCE_S", 0.1)
    router.steps, router.is_silent = router.steps[:1], True
    code, _, err = run(*command)
    assert (code, err) == (1, "baton: the deployment has said nothing for 0 s\n")


def test_a_migration_that_is_never_answered_is_an_error(run, router, monkeypatch):
    monkeypatch.setattr(router_timeouts, "MIGRATE_CALL_TIMEOUT_S", 0.1)
    router.is_silent = True
    code, _, err = run("migrate", "r1", "--to", "decode-1")
    assert (code, err.split(":")[1]) == (1, " DEADLINE_EXCEEDED")


def test_a_trace_names_every_instance_that_held_the_request(run, router):
    steps = [
        ("dispatched", "prefill-0", "", ""),
        ("granted", "prefill-0", "decode-0", "prefill"),
        ("passed", "decode-0", "prefill-0", "prefill"),
        ("granted", "decode-0", "decode-1", "migrate"),
        ("kept", "decode-0", "decode-1", "no room"),
        ("recovering", "decode-0", "", "decode-0: it ended the stream"),
        ("dispatched", "prefill-0", "", ""),
        ("finished", "prefill-0", "", "length"),
    ]
    router.trace = baton_pb2.RequestTrace(
        request_id="r1",
        events=[
            baton_pb2.TraceEvent(at_s=index / 10, event=event, instance=instance, peer=peer, reason=reason)
            for index, (event, instance, peer, reason) in enumerate(steps)
        ],
    )
    code, out, _ = run("trace", "r1")
    first, *lines = out.splitlines()
    assert (code, first) == (0, "r1 was held by prefill-0 → decode-0 → prefill-0")
    assert lines[2].endswith("0 tokens  prefill-0 has passed it to decode-0 (prefill)")
    assert lines[4].endswith("stays with decode-0 (no room)")
    assert lines[5].endswith("was lost and is computed again (decode-0: it ended the stream)")
    assert lines[-1].endswith("finished (length)")
    assert len(lines) == len(steps)


def test_a_request_without_a_trace_is_said_in_one_line(run, router):
    router.refusal = (grpc.StatusCode.NOT_FOUND, "no request with the id 'r1' is running or has just ended")
    code, _, err = run("trace", "r1")
    assert (code, err.count("\n")) == (1, 1)


def test_status_shows_handovers_under_way_with_stage_blocks_bytes_and_link(run, router):
    router.status.links.add(source="decode-0", target="decode-1", transport="shm")
    router.status.handovers.add(
        request_id="r1",
        source="decode-0",
        target="decode-1",
        state="TRANSFERRING",
        stage=2,
        num_blocks_sent=3,
        num_blocks=12,
        num_bytes=3 << 20,
    )
    code, out, _ = run("status")
    assert code == 0
    [line] = [line for line in out.splitlines() if "r1" in line]
    for shown in ("decode-0 → decode-1", "TRANSFERRING", "2", "3 of 12", "3.0", "shm"):
        assert shown in line


def test_status_says_nothing_of_handovers_when_there_are_none(run):
    assert "handover" not in run("status")[1]
