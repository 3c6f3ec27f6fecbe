import pytest
import typer

from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from deploy.bench.links import bench_links

pytestmark = pytest.mark.unit


def test_links_over_nccl_are_measured_only_where_there_is_a_gpu():
    try:
        CupyDevice(0)
    except NcclUnavailable as error:
        reason = str(error)
    else:
        pytest.skip("there is a GPU")
    with pytest.raises(typer.BadParameter) as caught:
        bench_links(nccl=True)
    assert str(caught.value) == f"no links over NCCL here: {reason}"
    assert caught.value.param_hint == "--nccl"
