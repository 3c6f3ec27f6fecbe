"""How requests end, each counted once: where its stream ends, however many clients read it and came back to it."""

from prometheus_client import CollectorRegistry, Counter

from cluster.engine.sequence import FinishReason
from router.errors import BatonError, RequestAborted
from router.observer import RouterObserver


class OutcomeMetrics(RouterObserver):
    """Those that a router takes over after their end count in its life too."""

    def __init__(self, registry: CollectorRegistry, model: str) -> None:
        self._model = model
        self._success = Counter(
            "vllm:request_success", "Requests that ended", ("model_name", "finished_reason"), registry=registry
        )
        self._failure = Counter(
            "baton:request_failure", "Requests refused or lost", ("model_name", "error"), registry=registry
        )

    def on_ended(self, finish_reason: FinishReason | None, error: BatonError | None) -> None:
        if error is None:
            self.count_finished(finish_reason or FinishReason.STOP)  # the client's front had seen a stop string
        elif isinstance(error, RequestAborted):
            self.count_finished(FinishReason.ABORT)
        else:
            self.count_failed(error)

    def count_finished(self, reason: FinishReason) -> None:
        self._success.labels(self._model, reason.value).inc()

    def count_failed(self, error: Exception) -> None:
        self._failure.labels(self._model, type(error).__name__).inc()
