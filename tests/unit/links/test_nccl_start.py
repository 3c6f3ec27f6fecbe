from pathlib import Path

import pytest

from cluster.instance.config import InstanceConfig
from cluster.instance.loading import load_engine
from cluster.links.config import LinkConfig
from cluster.links.device_region import TransportUnavailable
from cluster.role import InstanceRole
from deploy.roles import ROLE_POLICIES

from .factories import SECRET

pytestmark = pytest.mark.unit

MODEL = Path(__file__).parents[3] / "deploy/models/baton-tiny"


def test_an_instance_with_kv_in_host_memory_does_not_start_with_nccl():
    config = InstanceConfig(
        name="prefill-0",
        role=InstanceRole.PREFILL,
        model_path=str(MODEL),
        secret=SECRET,
        links=LinkConfig(transport="nccl"),
    )
    with pytest.raises(TransportUnavailable, match=r"spec\.links\.transport: is 'nccl'.* in host memory"):
        load_engine(config, ROLE_POLICIES[config.role], lambda progress: None)
