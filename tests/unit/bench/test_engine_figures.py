"""What `baton bench engine` makes of its timings: bounds, shares, stages."""

import importlib
import json

import pytest
import torch
import typer

from cluster.model import cpu_steps
from cluster.model.config import ModelConfig
from cluster.model.random_weights import llama_3_8b
from deploy.bench import engine, engine_turns
from deploy.bench.engine_bound import (
    Bound,
    decode_step_bytes,
    kv_bytes_per_token,
    mean_context,
    prefill_flops,
    weight_bytes,
)
from deploy.bench.engine_stages import (
    ATTENTION,
    HOST,
    LM_HEAD,
    MLP,
    ROPE_AND_KV,
    STAGES,
    StageClock,
)
from deploy.bench.engine_summary import Lengths, Turn, missed, summarise
from deploy.bench.engine_turns import Generation, decode_stages, generate, products_s
from tests.unit.model.factories import checkpoint, make_prompt, make_runner, rand

pytestmark = pytest.mark.unit

LENGTHS = Lengths(num_prompt_tokens=100, num_new_tokens=11)


def make_generation(step_s: float, *, tokens: int = 1) -> Generation:
    return Generation(prefill_s=0.5, decode_s=10 * step_s, step_s=step_s, output_token_ids=[[tokens]])


def make_turn(step_s: float, products_s: float, bytes_per_s: float, **others: float) -> Turn:
    return Turn(
        engine=make_generation(step_s),
        torch_products_s=products_s,
        products_s={MLP: 0.5 * products_s},
        stages_s=dict.fromkeys(STAGES, step_s / len(STAGES)),
        bytes_per_s=bytes_per_s,
        others={name: make_generation(other_s, tokens=2) for name, other_s in others.items()},
    )


def summarised(turns: list[Turn], config: ModelConfig | None = None) -> dict:
    return summarise(4, turns, LENGTHS, config or llama_3_8b(), 2)


# Bounds


def test_a_step_reads_the_weights_once_and_every_context():
    config = llama_3_8b()
    embedding = 128256 * 4096
    assert weight_bytes(config, 2) == 2 * (config.num_parameters - embedding)
    assert 14.9e9 < weight_bytes(config, 2) < 15.1e9
    assert kv_bytes_per_token(config, 2) == 131072
    one, many = (decode_step_bytes(config, size, 1000, 2) for size in (1, 3))
    assert many - one == 2 * (1001 * 131072 + 2 * 4096)
    assert mean_context(100, 11) == sum(range(101, 111)) / 10


def test_a_prefill_multiplies_every_token_with_the_layers_and_the_last_with_the_output_layer():
    config = llama_3_8b()
    layers = weight_bytes(config, 1) - 128256 * 4096
    assert prefill_flops(config, 1) == 2 * layers + 4 * 32 * 4096 + 2 * 128256 * 4096
    assert prefill_flops(config, 8192) / (2 * layers * 8192) == pytest.approx(1.157, abs=0.01)  # attention's part


def test_the_longer_of_products_and_bytes_binds():
    products, bandwidth = Bound(torch_s=4, own_s=2, bytes_s=3), Bound(torch_s=1, own_s=2, bytes_s=5)
    assert (products.name, products.seconds, products.of_own_s) == ("products", 4, 3)
    assert (bandwidth.name, bandwidth.seconds, bandwidth.of_own_s) == ("bandwidth", 5, 5)


# Figures


def test_shares_and_ratios_are_medians_of_those_within_a_turn():
    turns = [
        make_turn(0.02, 0.018, 1e15, other=0.03),
        make_turn(0.2, 0.19, 1e15, other=0.8),
        make_turn(0.04, 0.02, 1e15),
    ]
    turns[2].others["other"] = make_generation(0.04)
    figures = summarised(turns)
    assert figures["share_of_bound"] == pytest.approx(0.9)
    assert figures["share_of_own"] == pytest.approx(0.45)
    assert figures["bound"] == "products"
    assert figures["decode_throughput"] == pytest.approx(4 * 10 / 0.4)
    assert figures["compared"]["other"]["decode_speedup"] == pytest.approx(1.5)
    assert not figures["compared"]["other"]["same_tokens"]
    assert missed([figures]) == []


def test_what_is_missed_is_said_with_what_binds():
    num_bytes = decode_step_bytes(llama_3_8b(), 4, mean_context(100, 11), 2)
    figures = summarised([make_turn(0.02, 0.001, num_bytes / 0.01, other=0.02)])
    assert figures["share_of_bound"] == pytest.approx(0.5)
    assert missed([figures]) == [
        "batch 4: 50% of the bound set by bandwidth, 85% asked",
        "batch 4: 1.00 times other, 1.3 asked",
    ]


# Stages


def test_a_stage_is_timed_without_what_it_calls():
    now = [0.0]
    clock = StageClock(lambda: now[0])

    def spend(seconds: float) -> None:
        now[0] += seconds

    inner = clock.timed(spend, lambda _: ATTENTION)

    def outer(seconds: float) -> None:
        spend(seconds)
        inner(2 * seconds)
        inner(4 * seconds)

    clock.timed(outer, lambda _: HOST)(1.0)
    assert {stage: took for stage, took in clock.seconds.items() if took} == {HOST: 1.0, ATTENTION: 6.0}


@pytest.mark.parametrize("name", ["llama", "qwen3-tied-biased"])
@pytest.mark.parametrize(
    ("kernels", "num_prompts", "unseen"),
    [
        ("torch", 2, set()),
        ("numba", 2, {ROPE_AND_KV}),
        ("numba", 1, {ROPE_AND_KV}),
    ],
)
def test_every_stage_of_an_engines_step_is_seen_and_the_engine_is_left_as_it_was(
    name, kernels, num_prompts, unseen, monkeypatch
):
    if kernels == "numba":
        importlib.import_module("tests.unit.model.numba_kernels")
        monkeypatch.setattr(cpu_steps, "LEAST_PARAMETERS", 0)
    runner, prompts = make_runner(name), [list(make_prompt(20, seed)) for seed in range(num_prompts)]
    before = generate(runner, prompts, 6)
    stages_s = decode_stages(runner, prompts, 6)
    assert tuple(stages_s) == STAGES
    assert {stage for stage, took_s in stages_s.items() if took_s == 0} == unseen
    assert generate(runner, prompts, 6).output_token_ids == before.output_token_ids


def test_products_are_timed_by_stage():
    found = products_s(make_runner().model, 2, num_passes=2)
    assert set(found) == {"qkv", "output projection", MLP, LM_HEAD}
    assert all(took_s > 0 for took_s in found.values())


@pytest.mark.parametrize("num_rows", [1, 8])
def test_every_way_in_which_torch_multiplies_is_right(num_rows):
    model = make_runner().model
    for products in engine_turns._ways_of_torch(model, num_rows):
        for linear, product in zip(model.linears, products, strict=True):
            rows = rand(num_rows, linear.in_features)
            torch.testing.assert_close(product(rows, linear.weight, None), rows @ linear.weight.T)
    assert engine_turns.torch_products_s(model, num_rows, num_passes=2) > 0


# All of it


class Another:
    """Ourselves, in the place of transformers."""

    version = "0"

    def __init__(self, path: str, dtype: object) -> None:
        assert path == str(checkpoint("llama"))

    def generate(self, prompts: list[list[int]], num_new_tokens: int) -> Generation:
        return generate(make_runner(), prompts, num_new_tokens)


def test_all_of_it_runs_beside_another_and_is_reported(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(engine, "MEASURED_BYTES", 1 << 16)
    monkeypatch.setattr(engine, "TransformersReference", Another)
    few = {"batch_size": [1, 2], "prompt_tokens": 20, "new_tokens": 4, "repeats": 1}
    engine.bench_engine(
        checkpoint("llama"), **few, compare=[engine.Compared.TRANSFORMERS], json_file=tmp_path / "engine.json"
    )
    figures = json.loads((tmp_path / "engine.json").read_text())
    assert [batch["batch_size"] for batch in figures["batches"]] == [1, 2]
    for batch in figures["batches"]:
        assert batch["compared"]["transformers"]["same_tokens"]
        assert batch["share_of_own"] > 0
        assert batch["share_of_bound"] > 0
        assert [row["stage"] for row in batch["stages"]] == list(STAGES)
    assert "of own" in capsys.readouterr().out


def test_sequences_longer_than_the_model_takes_are_refused():
    with pytest.raises(typer.BadParameter, match="2051 tokens a sequence: the model takes 2048"):
        engine.bench_engine(checkpoint("llama"), prompt_tokens=2047, new_tokens=4)
