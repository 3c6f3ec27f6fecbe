"""The router in a process of its own, without Ray.

`python -m tests.integration.router_process CONFIG`, where CONFIG is JSON of a RouterConfig; the cluster's secret is in
BATON_TEST_SECRET. Prints its RouterInfo as a line of JSON when it serves; each line on its standard input is a JSON
list of all InstanceInfos there are; it stops when that ends.
"""

import asyncio
import dataclasses
import json
import os
import sys
from typing import Any

from cluster.instance.config import InstanceInfo
from cluster.role import InstanceRole
from cluster.secret import ClusterSecret
from router.config import RouterConfig
from router.service import RouterService


def info_to_json(info: InstanceInfo) -> dict[str, Any]:
    return {**dataclasses.asdict(info), "role": info.role.value}


def info_from_json(fields: dict[str, Any]) -> InstanceInfo:
    return InstanceInfo(**{**fields, "role": InstanceRole(fields["role"])})


async def serve(config: RouterConfig) -> None:
    service = RouterService(config)
    info = await service.start()
    print(json.dumps(dataclasses.asdict(info)), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        await service.set_instances([info_from_json(fields) for fields in json.loads(line)])
    await service.stop()


if __name__ == "__main__":
    secret = ClusterSecret(bytes.fromhex(os.environ["BATON_TEST_SECRET"]))
    asyncio.run(serve(RouterConfig(**json.loads(sys.argv[1]), secret=secret)))
