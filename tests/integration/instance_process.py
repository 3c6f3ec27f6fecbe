"""One instance in a process of its own, without Ray.

`python -m tests.integration.instance_process NAME ROLE MODEL OPTIONS`, where OPTIONS is JSON: `engine`, `links` and
`handover` hold fields of their configurations, `host` is where it listens, `node` what that host is called. Further
ranks are processes of their own. The cluster's secret is in BATON_TEST_SECRET, in hexadecimal: a command line is for
all to see. Prints its InstanceInfo as a line of JSON when it serves, and stops when its standard input ends.
"""

import asyncio
import dataclasses
import json
import os
import sys
from typing import Any

from cluster.instance.config import EngineConfig, HandoverConfig, InstanceConfig
from cluster.instance.instance import Instance
from cluster.links.config import LinkConfig
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from deploy.roles import ROLE_POLICIES
from tests.integration.rank_processes import follower_processes


def make_config(name: str, role: str, model_path: str, options: dict[str, Any]) -> InstanceConfig:
    return InstanceConfig(
        name=name,
        role=InstanceRole(role),
        model_path=model_path,
        secret=ClusterSecret(bytes.fromhex(os.environ["BATON_TEST_SECRET"])),
        host=options.get("host", "127.0.0.1"),
        node=options.get("node", ""),
        engine=EngineConfig(**{"kv_cache_memory_bytes": 32 << 20, "num_threads": 1, **options.get("engine", {})}),
        links=LinkConfig(**options.get("links", {})),
        handover=HandoverConfig(**options.get("handover", {})),
        front_timeout_s=options.get("front_timeout_s", 2.0),
    )


async def serve(config: InstanceConfig) -> None:
    with follower_processes(config.engine.tensor_parallel_size, secret=config.secret) as (_, addresses):
        instance = Instance(dataclasses.replace(config, rank_addresses=tuple(addresses)), ROLE_POLICIES)
        info = await instance.start()
        print(json.dumps({**dataclasses.asdict(info), "role": info.role.value}), flush=True)
        await asyncio.to_thread(sys.stdin.read)
        await instance.stop()


if __name__ == "__main__":
    name, role, model_path, options = sys.argv[1:]
    asyncio.run(serve(make_config(name, role, model_path, json.loads(options))))
