"""From timed steps to coefficients, to a file, and back; and files that people have edited."""

import re

import pytest

from cluster.latency.coefficients import CoefficientModel, DecodeCost, PrefillCost
from cluster.latency.fit import Residuals, TimedStep, fit, residuals
from cluster.latency.fitted import FittedHardware
from cluster.latency.hardware import Parallelism, UnknownParallelism
from cluster.latency.read import read_fitted
from cluster.latency.step_shape import StepShape
from cluster.latency.write import format_fitted
from cluster.spec.problem import SpecError

pytestmark = pytest.mark.unit

PREFILL = PrefillCost(fixed_s=0.018, s_per_token=1.02e-4, s_per_square=7.1e-9)
ANY = DecodeCost(fixed_s=0.020, s_per_context_token=6.27e-7, s_per_sequence=3.85e-5)
ALONE = DecodeCost(fixed_s=0.012, s_per_context_token=8e-7, s_per_sequence=0.0)
SMALL = DecodeCost(from_batch=2, fixed_s=0.020, s_per_context_token=6.27e-7, s_per_sequence=3.85e-5)
LARGE = DecodeCost(from_batch=32, fixed_s=0.007, s_per_context_token=5.8e-7, s_per_sequence=1.58e-3)


def steps_of(model, *, noise=0.0):
    """Prompts, chunks and decodes; each `noise` longer or shorter in turn."""
    shapes = [StepShape(n, float(n * n)) for n in (16, 64, 256, 1024, 4096)]
    shapes += [StepShape(n, float((start + n) ** 2 - start**2)) for n in (64, 512) for start in (512, 4096)]
    shapes += [StepShape(0, 0.0, b, b * c) for b in (1, 2, 4, 8, 16, 32, 64, 128) for c in (32, 256, 1024, 4096)]
    return [
        TimedStep(shape, model.stages_s(shape)[0] * (1 + noise * (-1) ** turn)) for turn, shape in enumerate(shapes)
    ]


def test_exact_steps_give_back_their_coefficients():
    model = CoefficientModel(prefill=PREFILL, decode=(ANY,))
    found = fit(steps_of(model))
    assert fields(found.prefill) == pytest.approx(fields(PREFILL))
    [cost] = found.decode
    assert fields(cost) == pytest.approx(fields(ANY))


def fields(cost):
    return {name: getattr(cost, name) for name in cost.__slots__}


def test_sets_of_decode_coefficients_are_found_where_batches_differ():
    found = fit(steps_of(CoefficientModel(prefill=PREFILL, decode=(ALONE, SMALL, LARGE)), noise=0.001))
    assert [cost.from_batch for cost in found.decode] == [0, 2, 32]


def test_noise_moves_the_fit_no_more_than_it_is():
    model = CoefficientModel(prefill=PREFILL, decode=(ANY,))
    steps = steps_of(model, noise=0.05)
    found = residuals(fit(steps), steps)
    assert found.num_steps == len(steps)
    assert found.largest < 0.1
    assert found.median == pytest.approx(0.05, rel=0.3)


def test_no_coefficient_is_below_zero():
    """Steps that get faster by the token, as where a kernel for many is better than the one for few."""
    prompts = [TimedStep(StepShape(n, float(n * n)), 1e-3 * n**0.8) for n in (16, 64, 256, 1024)]
    decodes = [TimedStep(StepShape(0, 0.0, b, 100 * b), 1e-3 * b**0.5) for b in (1, 2, 4, 8)]
    found = fit(prompts + decodes)
    assert min(*fields(found.prefill).values(), *(v for cost in found.decode for v in fields(cost).values())) >= 0


def test_too_few_steps_say_of_what():
    model = CoefficientModel(prefill=PREFILL, decode=(ANY,))
    with pytest.raises(ValueError, match="2 steps of decodes alone were timed; 3 are needed"):
        fit([step for step in steps_of(model) if step.shape.num_prefill_tokens] + steps_of(model)[-2:])


def make_hardware():
    return FittedHardware(
        model_name="llama-54m",
        device='A "fast" CPU, 1 thread',
        dtype="float32",
        kv_bytes_per_token=8192.0,
        kv_memory_bytes=256 << 20,
        coefficients=CoefficientModel(prefill=PREFILL, decode=(ALONE, SMALL, LARGE)),
        residuals={"prefill": Residuals(num_steps=9, median=0.02, p90=0.05, largest=0.1)},
    )


def test_what_was_written_is_read_back():
    assert read_fitted(format_fitted(make_hardware()), "profile.yaml") == make_hardware()


def test_it_is_known_as_it_was_measured_only():
    hardware = make_hardware()
    assert hardware.parallelisms() == [Parallelism()]
    assert hardware.num_kv_tokens(Parallelism()) == 32768
    with pytest.raises(UnknownParallelism, match="measured at TP1; nothing is known of TP2"):
        hardware.model(Parallelism(2))


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("kind: LatencyModel", "kind: Topology", "kind: is 'Topology'; should be 'LatencyModel' (line 6)"),
        ("fixed_s: 0.018", "fixed_s: fast", "prefill.fixed_s: is 'fast'; should be a number, 0 or more (line 13)"),
        ("fixed_s: 0.018", "fixed_s: -1", "prefill.fixed_s: is -1; should be a number, 0 or more (line 13)"),
        ("fixed_s: 0.018", "fixed_s: .nan", "prefill.fixed_s: is nan; should be a number, 0 or more (line 13)"),
        ("fixed_s: 0.018, ", "", "prefill.fixed_s: is missing (line 13)"),
        (
            "fixed_s: 0.018",
            "fix: 1, fixed_s: 0.018",
            "prefill.fix: is not known; the keys here are fixed_s, s_per_token",
        ),
        (
            "from_batch: 2,",
            "from_batch: 2.5,",
            "decode[1].from_batch: is 2.5; should be a whole number, 0 or more (line 16)",
        ),
        ("from_batch: 0,", "from_batch: 1,", "decode[0].from_batch: is 1; the first entry should begin at 0 (line 15)"),
        ("from_batch: 32,", "from_batch: 2,", "decode[2].from_batch: is 2; should be more than 2, of the entry before"),
        ("kv_memory_bytes: 268435456", "kv_memory_bytes: 1 slice", "kv_memory_bytes: '1 slice' is no size"),
        (
            "kv_bytes_per_token: 8192",
            "kv_bytes_per_token: 0",
            "kv_bytes_per_token: is 0; should be a number above 0 (line 11)",
        ),
        (
            "prefill: {",
            "prefill: 7 # {",
            "prefill: should be a mapping with the keys fixed_s, s_per_token, s_per_square",
        ),
        ("decode:", "decode: []\nold:", "decode: should be a list of mappings"),
        ("largest: 0.1", "worst: 0.1", "residuals.prefill.largest: is missing"),
    ],
)
def test_an_edited_file_says_which_field_is_wrong(old, new, problem):
    text = format_fitted(make_hardware())
    assert old in text
    with pytest.raises(SpecError, match=re.escape(f"mine.yaml: {problem}")):
        read_fitted(text.replace(old, new), "mine.yaml")


def test_coefficients_that_are_all_zero_are_refused():
    text = re.sub(
        r"prefill: \{fixed.*", "prefill: {fixed_s: 0, s_per_token: 0, s_per_square: 0}", format_fitted(make_hardware())
    )
    with pytest.raises(SpecError, match="prefill: is 0 in all: a step cannot take no time"):
        read_fitted(text, "mine.yaml")
