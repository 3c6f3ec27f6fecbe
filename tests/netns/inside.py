"""Tests whose own process stands on a host: what it makes – a router, a client – is on the network like all others.

A process changes hosts only while it is young (threads stay where they were started), so pytest runs the test again in
a process of its own, on the first host, and hands on how it ended.
"""

import asyncio
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager

import pytest

from tests.netns.hosts import ROOT, why_not
from tests.netns.network import Network

NETWORK_VARIABLE = "BATON_TEST_NETWORK"
TIMEOUT_S = 100  # less than the test outside has: what hangs is told by the one that hangs

Body = Callable[[Network], Awaitable[None]]


def inside(make: Callable[[], AbstractContextManager[Network]]) -> Callable[[Body], Callable[[], None]]:
    """`@inside(lambda: mesh(3))` before `async def test_...(network)`."""

    def decorate(body: Body) -> Callable[[], None]:
        def test() -> None:
            if text := os.environ.get(NETWORK_VARIABLE):
                asyncio.run(_run(body, Network.from_json(text)))
            elif reason := why_not():
                pytest.skip(reason)
            else:
                with make() as network:
                    _run_inside(f"{body.__module__.replace('.', '/')}.py::{body.__name__}", network)

        test.__name__, test.__doc__, test.__module__ = body.__name__, body.__doc__, body.__module__
        return test

    return decorate


async def _run(body: Body, network: Network) -> None:
    await body(network)


def _run_inside(test: str, network: Network) -> None:
    options = ["-q", "-s", "-p", "no:cacheprovider", f"--timeout={TIMEOUT_S}"]
    command = [*network.hosts[0].enter, sys.executable, "-m", "pytest", *options, test]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, NETWORK_VARIABLE: network.to_json()},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    print(done.stdout)
    if done.returncode:
        pytest.fail(done.stdout, pytrace=False)
