"""A request whose output is known, and a client that notes how long it is left without a word."""

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import grpc

from cluster.pb import baton_pb2
from cluster.role import InstanceRole
from router.client import BatonClient
from tests.faults.cells import Move
from tests.faults.faulty_cluster import FaultyCluster

_STORY = "In the morning the children went to the river, and the old man told them of the sea. " * 4
_NUM_TOKENS_BEFORE_LIVE = 8
# So many different ones, again and again: by then the blocks of the one before are nobody's cached ones any more.
_NUM_REQUESTS = 24


class WentWrong(AssertionError):
    """What a user was promised and did not get."""


@dataclass(frozen=True, slots=True)
class Request:
    """The same every time it is asked.

    It is drawn from two tokens at each position: seed and position count, but hardly ever does the last bit of a
    probability, which depends on what else was computed in the same step.
    """

    number: int
    max_tokens: int

    @property
    def prompt(self) -> str:
        return f"{self.number} stories. {_STORY}"

    @property
    def sampling(self) -> dict[str, Any]:
        return {"max_tokens": self.max_tokens, "temperature": 1.0, "top_k": 2, "seed": self.number, "ignore_eos": True}


def request_of(number: int, move: Move) -> Request:
    """Long enough that it still runs when something goes wrong."""
    return Request(number % _NUM_REQUESTS, max_tokens=60 if move is Move.PREFILL else 200)


class Stream:
    """A client's, and how long it was left without a word."""

    def __init__(self, client: BatonClient, request: Request, request_id: str, *, resumable: bool) -> None:
        self._client = client
        self._request = request
        self._resumable = resumable
        self.request_id = request_id
        self.token_ids: list[int] = []
        self.error: grpc.StatusCode | None = None
        self.finish_reason = baton_pb2.FINISH_REASON_UNSPECIFIED
        self.gap_s = 0.0
        self._grown = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        clock = asyncio.get_running_loop().time
        heard_s = clock()
        deltas = self._client.generate(
            self._request.prompt,
            request_id=self.request_id,
            resumable=self._resumable,
            **self._request.sampling,
        )
        try:
            async for delta in deltas:
                now_s = clock()
                self.gap_s, heard_s = max(self.gap_s, now_s - heard_s), now_s
                if delta.index != len(self.token_ids):
                    raise WentWrong(f"token {delta.index} came where {len(self.token_ids)} was next")
                self.token_ids += delta.token_ids
                self.finish_reason = delta.finish_reason
                self._grown.set()
        except grpc.aio.AioRpcError as error:
            self.error = error.code()
        finally:
            self._grown.set()

    async def until_decoding(self) -> None:
        while len(self.token_ids) < _NUM_TOKENS_BEFORE_LIVE and not self.task.done():
            self._grown.clear()
            await self._grown.wait()


async def undisturbed(requests: Iterable[Request]) -> dict[Request, list[int]]:
    """What one instance, which hands nothing over, says to each of them alone."""
    expected = {}
    async with FaultyCluster({"spare-0": InstanceRole.MIXED}) as cluster:
        for request in set(requests):
            stream = Stream(cluster.client, request, f"undisturbed-{request.number}", resumable=False)
            await stream.task
            assert len(stream.token_ids) == request.max_tokens, stream.error
            expected[request] = stream.token_ids
    return expected
