"""Models of a few coefficients: their formulas, and that fast-forwarding says what single steps say."""

from functools import reduce
from operator import add

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost, StageCost
from cluster.latency.step_shape import StepShape

pytestmark = pytest.mark.unit

SMALL = DecodeCost(fixed_s=0.020, s_per_context_token=6.27e-7, s_per_sequence=3.85e-5)
LARGE = DecodeCost(from_batch=95, fixed_s=0.007, s_per_context_token=5.8e-7, s_per_sequence=1.58e-4)
PREFILL = PrefillCost(fixed_s=0.018, s_per_token=1.02e-4, s_per_square=7.1e-9)


def make_model(**fields):
    return CoefficientModel(**({"prefill": PREFILL, "decode": (SMALL, LARGE)} | fields))


def test_a_prefill_of_whole_prompts():
    (seconds,) = make_model().stages_s(StepShape(num_prefill_tokens=300, prefill_squares=100**2 + 200**2))
    assert seconds == pytest.approx(0.018 + 300 * 1.02e-4 + 50_000 * 7.1e-9)


def test_large_batches_decode_by_coefficients_of_their_own():
    (below,), (above,) = (make_model().stages_s(StepShape(num_decodes=n, decode_context=9500)) for n in (94, 95))
    assert below == pytest.approx(0.020 + 94 * 3.85e-5 + 9500 * 6.27e-7)
    assert above == pytest.approx(0.007 + 95 * 1.58e-4 + 9500 * 5.8e-7)


def test_a_mixed_step_pays_the_greater_fixed_cost_once():
    (mixed,) = make_model().stages_s(StepShape(256, 256.0**2, 10, 5000))
    assert mixed == pytest.approx(0.020 + 256 * 1.02e-4 + 256**2 * 7.1e-9 + 10 * 3.85e-5 + 5000 * 6.27e-7)


def test_stages_share_the_work_and_the_first_has_the_call():
    stage = StageCost(prefill_s=0.002, call_s=0.003, call_s_per_token=1e-7)
    first, second = make_model(num_stages=2, stage=stage).stages_s(StepShape(num_prefill_tokens=1000))
    assert second == pytest.approx((0.018 + 1000 * 1.02e-4) / 2 + 0.002)
    assert first - second == pytest.approx(0.003 + 1e-4)


@given(
    num_decodes=st.integers(1, 2048),
    context=st.integers(0, 10**7),
    num_steps=st.integers(0, 200),
    num_stages=st.integers(1, 8),
    call_s=st.sampled_from((0.0, 2e-3)),
)
def test_fast_forwarded_steps_are_the_single_ones_to_the_bit(num_decodes, context, num_steps, num_stages, call_s):
    stage = StageCost(prefill_s=call_s, call_s=call_s, call_s_per_token=call_s * 1e-4)
    model = make_model(num_stages=num_stages, stage=stage)
    shapes = [StepShape(0, 0.0, num_decodes, context + step * num_decodes) for step in range(num_steps)]
    single = [reduce(add, model.stages_s(shape)) for shape in shapes]
    assert model.decode_steps_s(num_decodes, context, num_steps).tolist() == single


@pytest.mark.parametrize("decode", [(), (LARGE,), (SMALL, SMALL), (SMALL, LARGE, SMALL)])
def test_decode_sets_begin_at_no_sequences_and_rise(decode):
    with pytest.raises(ValueError, match="should begin at 0, and rise"):
        make_model(decode=decode)
