"""A router that says what the test makes it say, and commands that are run against it."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import grpc
import pytest

from cluster.pb import baton_pb2, baton_pb2_grpc
from deploy.cli import main

Progress = baton_pb2.DrainProgress
Run = Callable[..., tuple[int, str, str]]


class FakeRouter(baton_pb2_grpc.BatonServicer):
    """`refusal` ends every call; otherwise each answers what it finds here."""

    def __init__(self) -> None:
        self.asked: list[Any] = []
        self.is_silent = False
        self.refusal: tuple[grpc.StatusCode, str] | None = None
        self.steps = [Progress(num_requests=2), Progress(num_requests=1, num_moved=1), Progress(num_moved=2, done=True)]
        self.trace = baton_pb2.RequestTrace()
        self.status = baton_pb2.ClusterStatus(deployment="test", model="tiny")
        self.probe: list[baton_pb2.ProbeProgress] = []

    def _answer(self, request: Any, context: grpc.ServicerContext, answer: Any) -> Any:
        self.asked.append(request)
        if self.refusal:
            context.abort(*self.refusal)
        return answer

    def Migrate(self, request: Any, context: Any) -> Any:
        self.keep_silent(context)
        return self._answer(request, context, baton_pb2.MigrateResponse(source="decode-0", target=request.instance))

    def Drain(self, request: Any, context: Any) -> Any:
        yield from self._answer(request, context, self.steps[-1:] if request.undo else self.steps)
        self.keep_silent(context)

    def Flip(self, request: Any, context: Any) -> Any:
        yield from self._answer(request, context, self.steps)
        self.keep_silent(context)

    def Probe(self, request: Any, context: Any) -> Any:
        yield from self._answer(request, context, self.probe)

    def keep_silent(self, context: grpc.ServicerContext) -> None:
        if self.is_silent:
            is_over = Event()
            context.add_callback(is_over.set)
            is_over.wait()

    def Trace(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, self.trace)

    def Status(self, request: Any, context: Any) -> Any:
        return self._answer(request, context, self.status)


@pytest.fixture
def router() -> FakeRouter:
    return FakeRouter()


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No cluster to join, and no record of what else runs here."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


@pytest.fixture
def run_alone(capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command; its exit code, stdout and stderr."""

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.fixture
def run(router: FakeRouter, run_alone: Run) -> Iterator[Run]:
    """The same, against the router."""
    server = grpc.server(ThreadPoolExecutor(2))
    baton_pb2_grpc.add_BatonServicer_to_server(router, server)  # type: ignore[no-untyped-call]
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield lambda *arguments: run_alone(*arguments, "--address", address)
    server.stop(None).wait()
