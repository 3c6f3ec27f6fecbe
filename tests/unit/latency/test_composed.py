"""Models put together from kernels: against what was measured end to end, and what has to hold of any of them."""

import os
import pickle
from dataclasses import replace
from functools import cache, reduce
from operator import add
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cluster.latency.composed import ComposedHardware
from cluster.latency.engine_cost import KERNELS_ONLY
from cluster.latency.gpus import GPU_NAMES, gpu_named
from cluster.latency.hardware import DoesNotFit, Parallelism, UnknownParallelism
from cluster.latency.named import hardware_named
from cluster.latency.shapes import SHAPE_NAMES, ShapeError, shape_named, shape_of_config
from cluster.latency.step_shape import StepShape
from deploy.profiling.residuals import LIMIT, distserve, published, splitwise, table

pytestmark = pytest.mark.unit

TRACES = Path(os.environ.get("BATON_TRACES", Path(__file__).parents[4] / "shared/traces"))


@cache
def models():
    """Every parallelism of some shapes, as an engine runs them and as kernels alone."""
    found = []
    for gpu, shape in (("a100", "opt-13b"), ("h100", "llama-3-70b"), ("h200", "qwen3-14b")):
        for engine in (None, KERNELS_ONLY):
            hardware = ComposedHardware(shape_named(shape), gpu_named(gpu), engine)
            found += [hardware.model(each) for each in hardware.parallelisms()]
    return found


any_model = st.deferred(lambda: st.sampled_from(models()))
shapes = st.builds(
    lambda prompts, decodes, context: StepShape(
        sum(prompts), float(sum(length**2 for length in prompts)), decodes, decodes and decodes + context
    ),
    st.lists(st.integers(1, 20_000), max_size=4),
    st.integers(0, 3000),
    st.integers(0, 2_000_000),
)


@pytest.mark.parametrize("point", published(), ids=str)
def test_end_to_end_values_are_met(point):
    assert abs(point.residual()) <= LIMIT, f"{point.predicted_s():.4f} s"


def test_splitwise_is_met_at_every_tensor_parallelism():
    file = TRACES / "profiles/splitwise_perf_model.csv.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there; BATON_TRACES says where the traces are")
    points = list(splitwise(file))
    print(*table(points), sep="\n")
    single = [abs(point.residual()) for point in points if point.batch == 1]
    assert max(single) <= 0.2
    assert sum(abs(point.residual()) <= LIMIT for point in points) >= 0.95 * len(points)


def test_an_engine_that_waits_for_no_host_is_as_distserve_measured_its_own():
    residuals = sorted(abs(point.residual()) for point in distserve())
    assert residuals[len(residuals) // 2] < 0.12
    assert residuals[-1] < 0.35


def test_waiting_for_no_host_is_never_slower():
    for step in (StepShape(64, 64.0**2), StepShape(8192, 8192.0**2), StepShape(0, 0.0, 32, 64_000)):
        for gpu in ("a100", "h100", "h200"):
            eager, graphs = (
                hardware_named(name, "llama-3-70b").model(Parallelism(8)) for name in (gpu, f"{gpu}-graphs")
            )
            assert graphs.stages_s(step) <= eager.stages_s(step)


@settings(max_examples=100)
@given(any_model, st.integers(1, 3000), st.integers(0, 2_000_000), st.integers(1, 60))
def test_fast_forwarded_steps_are_the_single_ones_to_the_bit(model, num_decodes, context, num_steps):
    steps = [StepShape(0, 0.0, num_decodes, context + step * num_decodes) for step in range(num_steps)]
    single = [reduce(add, model.stages_s(step)) for step in steps]
    assert model.decode_steps_s(num_decodes, context, num_steps).tolist() == single


@settings(max_examples=100)
@given(any_model, shapes, st.integers(0, 5000), st.integers(0, 100), st.integers(0, 100_000))
def test_more_work_never_takes_less_time_and_none_is_free(model, shape, more_tokens, more_decodes, more_context):
    grown = StepShape(
        shape.num_prefill_tokens + more_tokens,
        shape.prefill_squares + more_tokens**2,
        shape.num_decodes + more_decodes,
        # Those that come have as much context as those that are there, at least.
        shape.decode_context
        + more_context * bool(shape.num_decodes + more_decodes)
        + more_decodes * -(-shape.decode_context // max(1, shape.num_decodes)),
    )
    for before, after in zip(model.stages_s(shape), model.stages_s(grown), strict=True):
        assert 0 < before <= after * (1 + 1e-9)


def test_a_mixed_step_costs_more_than_its_parts_and_less_than_both_in_turn():
    model = hardware_named("h100", "llama-3-70b").model(Parallelism(4))
    (prompt,) = model.stages_s(StepShape(512, 512.0**2))
    (decode,) = model.stages_s(StepShape(0, 0.0, 64, 64_000))
    (mixed,) = model.stages_s(StepShape(512, 512.0**2, 64, 64_000))
    assert max(prompt, decode) < mixed < prompt + decode


def test_stages_divide_the_layers_and_the_last_one_has_no_next():
    hardware = hardware_named("h100", "llama-3-70b")
    (whole,) = hardware.model(Parallelism(4)).stages_s(StepShape(2048, 2048.0**2))
    first, second, third, last = hardware.model(Parallelism(4, 4)).stages_s(StepShape(2048, 2048.0**2))
    assert first == second == third > last
    assert whole < 3 * first + last < 1.1 * whole
    (near, _), (far, *_) = (
        hardware.model(each).stages_s(StepShape(8192, 8192.0**2)) for each in (Parallelism(4, 2), Parallelism(8, 2))
    )
    sent = 8192 * 8192 * 2
    assert far - sent / 36e9 < near - sent / 348e9  # TP8 computes faster, but its next stage is on another node


def test_every_gpu_and_shape_can_be_had():
    for gpu in GPU_NAMES:
        for shape in SHAPE_NAMES:
            hardware = hardware_named(gpu, shape)
            most = hardware.parallelisms()[-1]
            assert hardware.num_kv_tokens(most) > 100_000
            assert all(seconds > 0 for seconds in hardware.model(most).stages_s(StepShape(1, 1.0)))


def test_kv_is_what_weights_and_reserve_leave():
    hardware = hardware_named("a100", "opt-13b")
    left = 0.9 * (80 << 30) - 2 * (40 * 12 * 5120**2 + 50272 * 5120)
    assert hardware.kv_bytes_per_token == 819_200
    assert hardware.num_kv_tokens(Parallelism()) == int(left / 819_200)
    # DistServe's engine has 66,144 tokens there.
    assert hardware.num_kv_tokens(Parallelism()) == pytest.approx(66_144, rel=0.06)


def test_a_model_that_does_not_fit_says_by_how_much():
    message = (
        r"h100/llama-3-70b at TP1: weights of 141\.1 GB a GPU leave nothing for KV of its 77\.3 GB "
        r"\(85\.9 GB less 10%\): 63\.8 GB too many"
    )
    with pytest.raises(DoesNotFit, match=message):
        hardware_named("h100", "llama-3-70b").num_kv_tokens(Parallelism(1))


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"GPU 'b200' is not known; known are a100, a100-graphs, .*, distserve-a100"):
        hardware_named("b200", "llama-3-8b")
    with pytest.raises(ValueError, match=r"model shape 'gpt-5' is not known; known are llama-2-13b, .*qwen3-8b"):
        hardware_named("h100", "gpt-5")
    with pytest.raises(UnknownParallelism, match="cannot be put together for TP3; known are TP1, TP1 PP2"):
        hardware_named("h100", "llama-3-70b").model(Parallelism(3))


def test_a_config_json_is_a_shape():
    config = {
        "architectures": ["LlamaForCausalLM"],
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 128256,
    }
    assert shape_of_config(config, "llama-3-8b") == shape_named("llama-3-8b")
    with pytest.raises(
        ShapeError, match=r"config\.json: num_hidden_layers: a positive whole number is needed, not '32'"
    ):
        shape_of_config(config | {"num_hidden_layers": "32"}, "config.json")
    with pytest.raises(ShapeError, match="num_local_experts: is 8; only dense models"):
        shape_of_config(config | {"num_local_experts": 8}, "config.json")


def test_smaller_heads_count_as_parts_of_one():
    shape = replace(shape_named("llama-3-8b"), num_heads=64, num_kv_heads=16, head_dim=64)
    step = StepShape(2048, 2048.0**2, 32, 64_000)
    (half,), (whole,) = (
        ComposedHardware(each, gpu_named("h100")).model(Parallelism()).stages_s(step)
        for each in (shape, shape_named("llama-3-8b"))
    )
    assert half == pytest.approx(whole)


def test_hardware_and_models_can_be_sent_to_other_processes():
    for name in (("h100", "llama-3-70b"), ("distserve-a100", "opt-13b")):
        hardware = pickle.loads(pickle.dumps(hardware_named(*name)))
        model = pickle.loads(pickle.dumps(hardware.model(Parallelism(4))))
        step = StepShape(100, 100.0**2, 4, 400)
        assert model.stages_s(step) == hardware_named(*name).model(Parallelism(4)).stages_s(step)
