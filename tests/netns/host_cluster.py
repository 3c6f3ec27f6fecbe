"""A cluster without Ray over several hosts: its router and its client in this process, each instance on its host."""

from collections.abc import Mapping
from typing import Any

from cluster.role import InstanceRole
from tests.integration.instance_process import InstanceProcess, make_config
from tests.integration.local_cluster import LocalCluster
from tests.netns.network import Network


class HostCluster(LocalCluster):
    """`places` says where each instance runs, by its name: `{"prefill-0": "a", "decode-0": "b"}`.

    To be made in a process on one of these hosts (`inside.py`), which is then the router's.
    """

    def __init__(self, network: Network, places: Mapping[str, str], **options: Any) -> None:
        roles = [name.partition("-")[0] for name in places]
        counts = {f"num_{role}": roles.count(role) for role in ("prefill", "decode", "mixed")}
        super().__init__(**counts, **options)
        self._hosts = {name: network[place] for name, place in places.items()}

    def _make_process(self, name: str, role: str, options: dict[str, Any]) -> InstanceProcess:
        host = self._hosts[name]
        options = {**options, "host": host.address, "node": host.name}
        config = make_config(name, InstanceRole(role), self._model_path, self.secret, options)
        return InstanceProcess(config, on=host)
