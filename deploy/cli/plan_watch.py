"""`baton plan --watch`: a running deployment looked at now and then, until somebody ends it."""

import time
from typing import NoReturn

from cluster.spec.deployment import Deployment
from deploy.cli.operate import flip
from deploy.errors import DeployError
from deploy.planner.goodput.question import Question
from deploy.planner.goodput.unit import Role
from deploy.planning.live_cluster import LiveCluster, fixed_instances
from deploy.planning.watch import Watch, WatchConfig
from deploy.records import find_record


def live_cluster(deployment: Deployment) -> LiveCluster:
    """DeployError when it does not run here."""
    record = find_record(deployment.metadata.name)
    if record is None:
        raise DeployError(f"{deployment.metadata.name} does not run here: there is nothing to watch")

    def flip_one(instance: str, role: Role) -> None:
        flip(instance, role, record.grpc_address)

    return LiveCluster(
        deployment=deployment,
        grpc_address=record.grpc_address,
        http_address=record.http_address,
        flips=flip_one,
    )


def watch_running(cluster: LiveCluster, question: Question, config: WatchConfig, interval_s: float) -> NoReturn:
    """DeployError when it answers no more."""
    _say(f"watching {cluster.deployment.metadata.name}; Ctrl-C ends it")
    watch = Watch(question, cluster, fixed_instances(cluster.deployment), config, _say)
    while True:
        watch.check()
        time.sleep(interval_s)


def _say(text: str) -> None:
    print(text, flush=True)
