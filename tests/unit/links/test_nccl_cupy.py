"""The fake has the shape of the real cupy: names and order of arguments, constants, types. Needs cupy, but no GPU."""

import importlib
import inspect
import re
from typing import Any

import pytest

from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import UNIQUE_ID_BYTES, NcclUnavailable

from . import fake_nccl

pytestmark = pytest.mark.unit

OUR_OWN = ("self", "owner", "world")  # arguments that only the fakes have


def real_signature(documented: Any) -> list[tuple[str, str]]:
    """(name, default) of each argument, from the first line of a compiled function's docstring."""
    arguments = re.match(r"[\w.]+\((.*)\)", documented.__doc__).group(1)
    found = []
    for argument in arguments.split(", "):
        declared, _, default = argument.partition("=")
        if (name := declared.split()[-1]) not in OUR_OWN:
            found.append((name, default))
    return found


def fake_signature(function: Any) -> list[tuple[str, str]]:
    return [
        (each.name, "" if each.default is each.empty else repr(each.default))
        for each in inspect.signature(function).parameters.values()
        if each.name not in OUR_OWN
    ]


@pytest.fixture(scope="module")
def cupy() -> Any:
    cupy = pytest.importorskip(
        "cupy", minversion="14.2", reason="cupy is not installed: the fake is not compared to it"
    )
    importlib.import_module("cupy.cuda.nccl")  # importing cupy alone does not
    if not cupy.cuda.nccl.available:
        pytest.skip("the NCCL library is not installed: the fake is not compared to cupy's binding of it")
    return cupy


def test_a_communicator_takes_the_same_arguments(cupy):
    real, fake = cupy.cuda.nccl.NcclCommunicator, fake_nccl.FakeCommunicator
    assert real_signature(real) == fake_signature(fake.__init__)
    for name in ("send", "recv", "abort", "check_async_error"):
        assert real_signature(getattr(real, name)) == fake_signature(getattr(fake, name)), name


def test_nccl_has_the_same_names_and_values(cupy):
    real, fake = cupy.cuda.nccl, fake_nccl.FakeNccl
    assert fake.NCCL_UINT8 == real.NCCL_UINT8
    assert fake_nccl.UNIQUE_ID_BYTES == UNIQUE_ID_BYTES
    assert isinstance(real.get_version(), int)
    assert isinstance(real.get_build_version(), int)
    assert issubclass(real.NcclError, RuntimeError)


def test_a_unique_id_is_bytes_and_made_without_a_gpu(cupy):
    first, second = cupy.cuda.nccl.get_unique_id(), cupy.cuda.nccl.get_unique_id()
    assert type(first) is bytes
    assert (len(first), first != second) == (UNIQUE_ID_BYTES, True)


def test_streams_and_events_take_the_same_arguments(cupy):
    for real, fake in ((cupy.cuda.Stream, fake_nccl.FakeStream), (cupy.cuda.Event, fake_nccl.FakeEvent)):
        assert set(fake_signature(fake.__init__)) <= set(fake_signature(real.__init__)), fake
    assert fake_signature(cupy.cuda.Stream.wait_event) == fake_signature(fake_nccl.FakeStream.wait_event)
    assert fake_signature(cupy.cuda.Stream.synchronize) == fake_signature(fake_nccl.FakeStream.synchronize)
    assert fake_signature(cupy.cuda.Event.record) == fake_signature(fake_nccl.FakeEvent.record)
    assert fake_signature(cupy.cuda.Event.synchronize) == fake_signature(fake_nccl.FakeEvent.synchronize)


def test_the_runtime_takes_the_same_arguments(cupy):
    real, fake = cupy.cuda.runtime, fake_nccl.FakeRuntime
    assert fake.memcpyDeviceToHost == real.memcpyDeviceToHost
    assert real_signature(real.memcpyAsync) == fake_signature(fake.memcpyAsync)
    assert real.getDeviceCount.__doc__.startswith("getDeviceCount()")
    assert isinstance(real.runtimeGetVersion(), int)


def test_memory_kernels_and_devices_are_made_from_the_same_arguments(cupy):
    assert real_signature(cupy.cuda.alloc) == fake_signature(fake_nccl.FakePointer.__init__)
    assert real_signature(cupy.RawKernel)[:2] == fake_signature(fake_nccl.FakeCupy.RawKernel)
    assert cupy.RawKernel.__call__.__doc__.startswith("RawKernel.__call__(self, grid, block, args")
    assert cupy.cuda.Device.use.__doc__.startswith("Device.use(self)")


def test_cupy_cannot_make_a_communicator_that_does_not_block(cupy):
    """Where it can, `nccl.py` should: an abandoned set-up then ends by an abort, too."""
    assert [name for name in dir(cupy.cuda.nccl.NcclConfig) if "block" in name] == []


def test_without_a_gpu_the_device_is_unavailable(cupy):
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError:
        count = 0
    with pytest.raises(NcclUnavailable, match="no CUDA device"):
        CupyDevice(count)
