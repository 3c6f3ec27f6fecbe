"""Processes forked off one that has imported what takes long: that is most of what a process takes to start."""

import multiprocessing
from multiprocessing.context import ForkServerContext

# All that is forked in one run of the tests comes from the same server, whoever started it.
_IMPORTED_ONCE = [
    "torch",
    "cluster.model.runner",
    "tests.integration.instance_process",
    "tests.integration.link_processes",
    "tests.faults.child",
]


def fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_IMPORTED_ONCE)
    return context
