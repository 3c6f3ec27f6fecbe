import pytest
import typer

from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from deploy.bench.links import bench_links
from deploy.bench.nccl_links import timing_note

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


def test_times_of_two_processes_on_one_gpu_are_said_to_mean_nothing_without_mps(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_MPS_PIPE_DIRECTORY", str(tmp_path))
    assert timing_note(2) == ""
    assert "take turns" in timing_note(1)
    (tmp_path / "control").touch()
    assert timing_note(1) == ""
