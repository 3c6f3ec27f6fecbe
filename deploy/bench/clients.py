"""How a benchmark speaks to a deployment: one stream a request, over gRPC or OpenAI's HTTP."""

import json
from collections.abc import AsyncIterator
from typing import Any, Protocol, Self

import aiohttp
import grpc

from router.client import BatonClient


class RequestFailed(Exception):
    """The request did not end well; the text is the server's."""


class LoadClient(Protocol):
    async def __aenter__(self) -> Self: ...
    async def __aexit__(self, *error: object) -> None: ...
    def stream(self, prompt: list[int], max_tokens: int) -> AsyncIterator[int]:
        """The number of tokens in each piece, as it comes; greedy, and on beyond the end of text. RequestFailed."""


class GrpcLoad:
    def __init__(self, address: str) -> None:
        self._client = BatonClient(address)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._client.close()

    async def stream(self, prompt: list[int], max_tokens: int) -> AsyncIterator[int]:
        try:
            async for delta in self._client.generate(prompt, max_tokens=max_tokens, temperature=0.0, ignore_eos=True):
                yield len(delta.token_ids)
        except grpc.aio.AioRpcError as error:
            raise RequestFailed(f"{error.code().name}: {error.details()}") from error


class HttpLoad:
    """Tokens without text of their own (half characters) come with the next piece; the usage at the end counts them."""

    def __init__(self, address: str) -> None:
        self._url = f"http://{address}/v1/completions"
        connector = aiohttp.TCPConnector(limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=None))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._session.close()

    async def stream(self, prompt: list[int], max_tokens: int) -> AsyncIterator[int]:
        body = {
            "prompt": prompt,
            "max_tokens": max_tokens,
            "temperature": 0.0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        num_tokens = 0
        try:
            async with self._session.post(self._url, json=body) as response:
                if response.status != 200:
                    raise RequestFailed(f"{response.status}: {(await response.text())[:200]}")
                async for line in response.content:
                    if event := _event(line):
                        num_new = 1 if event["choices"] else event["usage"]["completion_tokens"] - num_tokens
                        num_tokens += num_new
                        yield num_new
        except aiohttp.ClientError as error:
            raise RequestFailed(f"{type(error).__name__}: {error}") from error


def _event(line: bytes) -> dict[str, Any] | None:
    if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
        return None
    event: dict[str, Any] = json.loads(line[6:])
    if "error" in event:
        raise RequestFailed(event["error"]["message"])
    return event


CLIENTS: dict[str, type[GrpcLoad] | type[HttpLoad]] = {"grpc": GrpcLoad, "http": HttpLoad}
