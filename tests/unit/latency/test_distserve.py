"""DistServe's figures: as published, and no more than was published."""

import pytest

from cluster.latency.distserve import DistServeHardware
from cluster.latency.hardware import DoesNotFit, Parallelism, UnknownParallelism
from cluster.latency.step_shape import StepShape

pytestmark = pytest.mark.unit


def test_opt_13b_on_one_a100():
    model = DistServeHardware("opt-13b").model(Parallelism())
    (prefill_s,) = model.stages_s(StepShape(num_prefill_tokens=512, prefill_squares=512**2))
    (decode_s,) = model.stages_s(StepShape(num_decodes=16, decode_context=8192))
    assert prefill_s * 1e3 == pytest.approx(18.1025 + 0.10191 * 512 + 7.1223e-6 * 512**2, rel=1e-4)
    assert decode_s * 1e3 == pytest.approx(19.9347 + 0.000626936 * 8192 + 0.038507 * 16, rel=1e-4)


def test_what_its_simulator_adds_is_an_option():
    plain, added = (DistServeHardware("opt-66b", flag).model(Parallelism(4, 2)) for flag in (False, True))
    shape = StepShape(num_prefill_tokens=1000, prefill_squares=1e6)
    first, second = (b - a for a, b in zip(plain.stages_s(shape), added.stages_s(shape), strict=True))
    assert (first, second) == pytest.approx((0.002 + 0.002 + 1e-4, 0.002))


def test_kv_is_what_fits_at_every_parallelism_that_it_knows():
    for name in ("opt-13b", "opt-66b"):
        hardware = DistServeHardware(name)
        assert all(hardware.num_kv_tokens(each) > 10_000 for each in hardware.parallelisms())
    assert DistServeHardware("opt-13b").num_kv_tokens(Parallelism(2, 1)) == 163_008
    assert DistServeHardware("opt-13b").kv_bytes_per_token == 819_200


def test_what_does_not_fit_says_by_how_much():
    with pytest.raises(
        DoesNotFit, match=r"weights of 131\.4 GB do not fit into one GPU's 85\.9 GB \(45\.5 GB too many\)"
    ):
        DistServeHardware("opt-66b").num_kv_tokens(Parallelism())


def test_what_was_not_measured_is_not_made_up():
    with pytest.raises(UnknownParallelism, match=r"did not measure TP16; known are TP1, TP1 PP2, .*TP4 PP8$"):
        DistServeHardware("opt-13b").model(Parallelism(16))
    with pytest.raises(UnknownParallelism, match="no KV capacity for TP4 PP3"):
        DistServeHardware("opt-13b").num_kv_tokens(Parallelism(4, 3))
    with pytest.raises(ValueError, match="only for opt-13b, opt-66b"):
        DistServeHardware("opt-175b")
