"""The HTTP front's server: routes, readiness, and uvicorn in the caller's event loop.

`/v1/completions`, `/v1/chat/completions`, `/v1/models`, `/health`, `/metrics`.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import Iterator

import uvicorn
from prometheus_client import CONTENT_TYPE_LATEST
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from router.errors import ModelNotFound
from router.generation import TextGenerator
from router.http_errors import EXCEPTION_HANDLERS
from router.listening_socket import listening_socket
from router.openai_endpoints import ChatEndpoint, CompletionEndpoint

KEEP_ALIVE_S = 75  # longer than clients keep idle connections, so that none is closed under a new request


class HttpFront:
    """To be made, as it is used, in a running event loop."""

    def __init__(self, generator: TextGenerator) -> None:
        self._generator = generator
        self._is_ready = False
        self._started_s = int(time.time())
        self._serving: asyncio.Task[None] | None = None
        config = uvicorn.Config(
            self._app(),
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=1,
        )
        self._server = _Server(config)

    async def start(self, host: str, port: int) -> int:
        """Returns the bound port (0 draws one). Not ready yet: see `set_ready`. Raises PortInUse."""
        listener = listening_socket(host, port)
        bound: int = listener.getsockname()[1]
        self._serving = asyncio.create_task(self._server.serve(sockets=[listener]))
        await self._server.has_started.wait()
        return bound

    async def set_ready(self, ready: bool) -> None:
        """What /health says."""
        self._is_ready = ready

    async def stop(self) -> None:
        """Requests that still run after a second are cancelled."""
        if self._serving is not None:
            self._server.should_exit = True
            await self._serving

    def _app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/v1/completions", CompletionEndpoint(self._generator), methods=["POST"]),
                Route("/v1/chat/completions", ChatEndpoint(self._generator), methods=["POST"]),
                Route("/v1/models", self._models),
                Route("/v1/models/{model:path}", self._model),
                Route("/health", self._health),
                Route("/metrics", self._metrics),
            ],
            exception_handlers=EXCEPTION_HANDLERS,
        )

    async def _models(self, request: Request) -> Response:
        return JSONResponse({"object": "list", "data": [self._card()]})

    async def _model(self, request: Request) -> Response:
        if request.path_params["model"] != self._generator.model_info.model:
            raise ModelNotFound("model", f"{request.path_params['model']!r} is not served here")
        return JSONResponse(self._card())

    async def _health(self, request: Request) -> Response:
        return Response(status_code=200 if self._is_ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return Response(await self._generator.metrics.render_aside(), headers={"content-type": CONTENT_TYPE_LATEST})

    def _card(self) -> dict[str, object]:
        info = self._generator.model_info
        return {
            "id": info.model,
            "object": "model",
            "created": self._started_s,
            "owned_by": "baton",
            "max_model_len": info.max_model_len,
        }


class _Server(uvicorn.Server):
    """One that says when it has started, and leaves the process's signals alone."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.has_started = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.has_started.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield
