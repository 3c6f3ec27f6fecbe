"""Prometheus metrics of the router: vLLM's names where vLLM has one, `baton:` for what only Baton knows."""

import asyncio
import time
from asyncio import CancelledError
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from cluster.engine.sequence import FinishReason
from cluster.pb import baton_pb2
from router.handover_metrics import HandoverMetrics
from router.outcomes import OutcomeMetrics
from router.status_collector import StatusCollector

TTFT_BUCKETS_S = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160)
ITL_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 10, 20)
E2E_BUCKETS_S = (0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920)


class Metrics:
    """`status` is asked at each scrape, so the gauges cannot be stale."""

    def __init__(self, model: str, status: Callable[[], baton_pb2.ClusterStatus]) -> None:
        self._registry = CollectorRegistry()
        self._status = status
        self._model = model
        self.prompt_tokens = self._counter("vllm:prompt_tokens", "Prompt tokens of admitted requests")
        self.generation_tokens = self._counter("vllm:generation_tokens", "Output tokens")
        self.ttft_s = self._histogram("vllm:time_to_first_token_seconds", "Arrival to first token", TTFT_BUCKETS_S)
        self.itl_s = self._histogram("vllm:inter_token_latency_seconds", "Token to token", ITL_BUCKETS_S)
        self.second_token_s = self._histogram(
            "baton:second_token_seconds", "First token to second: the hand-over shows here", ITL_BUCKETS_S
        )
        self.tpot_s = self._histogram(
            "vllm:request_time_per_output_token_seconds", "(E2EL - TTFT) / (n - 1)", ITL_BUCKETS_S
        )
        self.e2e_s = self._histogram("vllm:e2e_request_latency_seconds", "Arrival to last token", E2E_BUCKETS_S)
        self.outcomes = OutcomeMetrics(self._registry, model)
        self.handovers = HandoverMetrics(self._registry, model)

    @contextmanager
    def request(self) -> Iterator["RequestObserver"]:
        """Around one stream of a request, from its arrival; counted here if it ends before the request is admitted."""
        observer = RequestObserver(self)
        try:
            yield observer
        except (GeneratorExit, CancelledError):
            if not observer.is_admitted:
                self.outcomes.count_finished(FinishReason.ABORT)
            raise
        except Exception as error:
            if not observer.is_admitted:
                self.outcomes.count_failed(error)
            raise

    def render(self) -> bytes:
        """In Prometheus' text format."""
        return self._text(self._status())

    async def render_aside(self) -> bytes:
        """The same; while the text is made, which takes long where there is much to tell, the event loop goes on."""
        return await asyncio.to_thread(self._text, self._status())

    def _text(self, status: baton_pb2.ClusterStatus) -> bytes:
        of_status = CollectorRegistry()
        of_status.register(StatusCollector(self._model, lambda: status))
        return generate_latest(of_status) + generate_latest(self._registry)

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, ("model_name",), registry=self._registry).labels(self._model)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...]) -> Histogram:
        return Histogram(name, text, ("model_name",), registry=self._registry, buckets=buckets).labels(self._model)


class RequestObserver:
    """Times one request as its front sees it."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._arrival_s = time.monotonic()
        self._first_s = self._last_s = 0.0
        self._num_tokens = 0
        self.is_admitted = False

    def admitted(self, num_prompt_tokens: int) -> None:
        self.is_admitted = True
        self._metrics.prompt_tokens.inc(num_prompt_tokens)

    def tokens(self, num_tokens: int) -> None:
        """The next tokens have come, all at once; the gap before them is shared out among them."""
        if num_tokens == 0:
            return
        now_s = time.monotonic()
        if self._num_tokens == 0:
            self._first_s = now_s
            self._metrics.ttft_s.observe(now_s - self._arrival_s)
        else:
            self._observe_gap((now_s - self._last_s) / num_tokens, num_tokens)
        self._last_s = now_s
        self._num_tokens += num_tokens
        self._metrics.generation_tokens.inc(num_tokens)

    def finished(self) -> None:
        self._metrics.e2e_s.observe(self._last_s - self._arrival_s)
        if self._num_tokens > 1:
            self._metrics.tpot_s.observe((self._last_s - self._first_s) / (self._num_tokens - 1))

    def _observe_gap(self, gap_s: float, num_tokens: int) -> None:
        if self._num_tokens == 1:
            self._metrics.second_token_s.observe(gap_s)
        for _ in range(num_tokens):
            self._metrics.itl_s.observe(gap_s)
