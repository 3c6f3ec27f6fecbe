"""A `ProbeNode` on a host, in a process of its own, told what to do over a pipe."""

import multiprocessing
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

from cluster.links.probe.node import ProbeNode, ProbeTarget
from cluster.messages import Probed
from cluster.secret import SECRET_BYTES, ClusterSecret
from tests.netns.hosts import Host, settle_on

SECRET = ClusterSecret(bytes(SECRET_BYTES))
PATIENCE_S = 60.0


class ProbeProcess:
    """`begin_...` asks, `answer` waits for what comes of it: so several can be at it at once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, host), daemon=True)
        self._process.start()
        theirs.close()
        self.target: ProbeTarget = self.answer()

    def probe(self, other: "ProbeProcess", budget_s: float = 1.0) -> Probed:
        self.begin_probe(other, budget_s)
        probed: Probed = self.answer()
        return probed

    def begin_probe(self, other: "ProbeProcess", budget_s: float = 1.0) -> None:
        self._pipe.send(("probe", (other.target, budget_s)))

    def begin_flood(self, others: Sequence["ProbeProcess"], seconds: float) -> None:
        """Answered by bytes/s, of all together."""
        self._pipe.send(("flood", ([other.target for other in others], seconds)))

    def answer(self) -> Any:
        assert self._pipe.poll(PATIENCE_S), "no answer"
        answer = self._pipe.recv()
        if isinstance(answer, Exception):
            raise answer
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, host: Host) -> None:
    settle_on(host)
    node = ProbeNode(host.name, secret=SECRET, host=host.address)
    pipe.send(node.target)
    while True:
        method, arguments = pipe.recv()
        try:
            pipe.send(getattr(node, method)(*arguments))
        except Exception as error:
            pipe.send(error)
