import asyncio
from pathlib import Path

import pytest

from cluster.pb import baton_pb2
from deploy.bench.clients import RequestFailed
from deploy.bench.limits import split_words
from deploy.bench.load import measure, run_load
from deploy.bench.metrics import summarize
from deploy.bench.outcome import Outcome
from deploy.bench.report import leftovers
from deploy.bench.traffic import TrafficOptions, make_traffic, read_requests
from deploy.errors import InputError
from deploy.workload.request import WorkloadRequest

pytestmark = pytest.mark.unit


def make_outcome(*times_s, tokens=None, **changes):
    """One that began at 0 and whose pieces came at these times."""
    fields = {"num_prompt_tokens": 10, "start_s": 0.0, "token_times_s": list(times_s)}
    return Outcome(**{**fields, "num_output_tokens": len(times_s) if tokens is None else tokens, **changes})


class ScriptedClient:
    """Streams what it is told to: numbers of tokens, or a failure."""

    def __init__(self, *pieces):
        self.pieces = pieces
        self.num_running = self.most_running = 0

    async def stream(self, prompt, max_tokens):
        self.num_running += 1
        self.most_running = max(self.most_running, self.num_running)
        try:
            for piece in self.pieces:
                await asyncio.sleep(0)
                if isinstance(piece, Exception):
                    raise piece
                yield piece
        finally:
            self.num_running -= 1


def test_latencies_of_one_request():
    figures = summarize([make_outcome(0.5, 0.6, 0.9)], 2.0, {})
    assert figures["mean_ttft_ms"] == pytest.approx(500)
    assert figures["mean_tpot_ms"] == pytest.approx(200)
    assert figures["mean_itl_ms"] == pytest.approx(200)
    assert figures["median_second_token_ms"] == pytest.approx(100)
    assert figures["p99_e2el_ms"] == pytest.approx(900)
    assert figures["request_goodput"] is None


def test_tokens_that_come_together_count_for_tpot_each_and_for_itl_once():
    figures = summarize([make_outcome(0.5, 0.9, tokens=5)], 1.0, {})
    assert figures["mean_tpot_ms"] == pytest.approx(100)
    assert figures["mean_itl_ms"] == pytest.approx(400)


def test_throughputs_count_only_what_succeeded():
    outcomes = [make_outcome(0.5, 0.6), make_outcome(0.1, error="lost"), make_outcome(0.5)]
    figures = summarize(outcomes, 2.0, {})
    assert (figures["completed"], figures["failed"]) == (2, 1)
    assert (figures["total_input_tokens"], figures["total_output_tokens"]) == (20, 3)
    assert (figures["request_throughput"], figures["output_throughput"]) == (1.0, 1.5)
    assert figures["total_token_throughput"] == 11.5


def test_goodput_counts_requests_within_all_limits():
    outcomes = [make_outcome(0.1, 0.15), make_outcome(0.3, 0.35), make_outcome(0.1, 0.4), make_outcome(error="lost")]
    figures = summarize(outcomes, 2.0, {"ttft": 200.0, "tpot": 100.0})
    assert (figures["request_goodput"], figures["slo_attainment"]) == (0.5, 0.25)


def test_figures_without_any_success_are_absent():
    figures = summarize([make_outcome(error="lost")], 1.0, {})
    assert figures["completed"] == 0
    assert figures["mean_ttft_ms"] is figures["p99_itl_ms"] is None


async def test_a_stream_is_measured_by_its_pieces():
    outcome = await measure(ScriptedClient(1, 0, 2), [1, 2, 3], 3)
    assert outcome.is_success
    assert (outcome.num_prompt_tokens, outcome.num_output_tokens, len(outcome.token_times_s)) == (3, 3, 2)


@pytest.mark.parametrize(
    ("pieces", "error"),
    [((), "ended without a token"), ((0,), "ended without a token"), ((1, RequestFailed("x")), "x")],
)
async def test_what_brings_no_token_or_an_error_is_a_failure(pieces, error):
    assert (await measure(ScriptedClient(*pieces), [1], 3)).error == error


async def test_concurrency_holds_requests_back():
    client, done = ScriptedClient(1, 1), []
    requests = [WorkloadRequest(arrival_s=0.0, num_prompt_tokens=1, num_output_tokens=2)] * 10
    outcomes, _ = await run_load(client, requests, [[1]] * 10, concurrency=3, on_done=done.append)
    assert client.most_running == 3
    assert len(outcomes) == len(done) == 10


def test_limits_are_told_from_the_file_by_their_form():
    assert split_words(["deploy/local.yaml", "ttft:100", "tpot:20.5"]) == (
        Path("deploy/local.yaml"),
        {"ttft": 100.0, "tpot": 20.5},
    )
    assert split_words(["ttft:100 e2el:2000"]) == (None, {"ttft": 100.0, "e2el": 2000.0})


def test_leftovers_are_named():
    clean = baton_pb2.InstanceStatus(instance="a", num_free_blocks=5)
    dirty = baton_pb2.InstanceStatus(instance="b", num_sequences=1, num_leaked_blocks=2)
    status = baton_pb2.ClusterStatus(instances=[clean, dirty])
    assert leftovers(status) == ["b holds 1 sequences", "b holds 2 leaked blocks"]


@pytest.fixture
def traffic(tmp_path):
    """Makes traffic of a trace with these rows."""

    def make(header, rows, *, is_closed_loop=False, **options):
        (tmp_path / "trace.csv").write_text("\n".join([header, *rows]) + "\n")
        model = baton_pb2.ModelInfo(max_model_len=100, vocab_size=50, eos_token_ids=[3])
        options = TrafficOptions(trace=tmp_path / "trace.csv", **options)
        return make_traffic(read_requests(options, is_closed_loop=is_closed_loop), options, model)

    return make


TIMED, LENGTHS = "prompt_len,output_len,start_time", "prompt_len,output_len"


def test_a_rate_stretches_the_traces_own_arrivals(traffic):
    made = traffic(TIMED, ["5,5,0", "5,5,1", "5,5,4"], rate=1.0)
    assert [request.arrival_s for request in made.requests] == [0.0, 0.5, 2.0]
    assert made.rate == 1.0


def test_a_speedup_shortens_the_traces_own_arrivals(traffic):
    made = traffic(TIMED, ["5,5,0", "5,5,4"], speedup=4.0)
    assert [request.arrival_s for request in made.requests] == [0.0, 1.0]


def test_an_infinite_rate_sends_all_at_once(traffic):
    made = traffic(TIMED, ["5,5,0", "5,5,4"], rate=float("inf"))
    assert [request.arrival_s for request in made.requests] == [0.0, 0.0]
    assert made.rate is None


def test_lengths_need_a_rate_or_a_concurrency(traffic):
    with pytest.raises(InputError, match="holds no arrival times; give --rate or --concurrency"):
        traffic(LENGTHS, ["5,5"])
    assert traffic(LENGTHS, ["5,5"], is_closed_loop=True).requests[0].arrival_s == 0.0
    assert len(traffic(LENGTHS, ["5,5"] * 9, rate=3.0).requests) == 9


def test_prompts_are_as_long_as_the_scaled_lengths_and_hold_no_end_of_text(traffic):
    made = traffic(LENGTHS, ["150,50", "20,2"], is_closed_loop=True)
    assert made.length_factor == 0.5
    assert [len(prompt) for prompt in made.prompts] == [75, 10]
    assert not any(3 in prompt for prompt in made.prompts)
