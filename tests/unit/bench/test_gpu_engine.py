"""`baton bench engine --device cuda` without a GPU: its refusals, its arithmetic, and all its turns on a CPU."""

import json
from dataclasses import replace
from functools import partial

import pytest
import torch
import typer

from cluster.model.device import DeviceUnavailable
from cluster.model.random_weights import llama_3_8b
from deploy.bench import gpu_engine
from deploy.bench.aims import Aim
from deploy.bench.engine import bench_engine
from deploy.bench.gpu_engine import Plan, check_room, fitting
from deploy.bench.gpu_figures import (
    GRAPHS,
    NO_GRAPHS,
    WAYS,
    DecodeTurn,
    PrefillTurn,
    decode_row,
    engine_aims,
    prefill_row,
)
from tests.unit.bench.small_shape import SMALL

pytestmark = pytest.mark.unit


def make_turn(step_s: float, *, bytes_per_s: float = 100.0) -> DecodeTurn:
    return DecodeTurn(step_s=step_s, pass_s=0.9 * step_s, gap_share=0.02, bytes_per_s=bytes_per_s)


# Refusals


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    for device in ("cuda", "cuda:1"):
        with pytest.raises(typer.BadParameter) as caught:
            bench_engine(device=device)
        assert caught.value.param_hint == "--device"
        assert "\n" not in str(caught.value)


def test_a_gpu_that_is_too_small_is_told_by_how_much_before_anything_is_made():
    plan = Plan(batch_sizes=(1, 16, 64), num_context_tokens=1024, num_steps=64)
    check_room(plan, llama_3_8b(), 2, 79 << 30)
    with pytest.raises(DeviceUnavailable, match=r"take \d+\.\d GiB, and the GPU has 24.0 GiB free: \d+\.\d GiB are"):
        check_room(plan, llama_3_8b(), 2, 24 << 30)
    with pytest.raises(ValueError, match="the model takes 8192"):
        check_room(replace(plan, num_context_tokens=8192), llama_3_8b(), 2, 79 << 30)


def test_others_are_not_compared_on_a_gpu():
    with pytest.raises(typer.BadParameter, match="on a CPU only"):
        bench_engine(device="cuda", compare=["transformers"])


def test_prefills_are_no_longer_than_the_model_takes():
    assert fitting((2048, 8192), 4096) == (2048,)
    assert fitting((2048, 8192), 1024) == (1024,)


# Arithmetic


def test_a_decode_row_has_medians_of_the_shares_of_each_turn():
    own = [make_turn(0.10, bytes_per_s=100), make_turn(0.20, bytes_per_s=50), make_turn(0.40, bytes_per_s=50)]
    row = decode_row(16, GRAPHS, own, own, 9.0)
    assert row["share_of_bound"] == pytest.approx(0.9)
    assert row["throughput"] == pytest.approx(80)
    assert row["beyond_pass_share"] == pytest.approx(0.1)
    assert row["cost"] == 0
    slower = [make_turn(0.12), make_turn(0.25), make_turn(0.44)]
    assert decode_row(16, NO_GRAPHS, slower, own, 9.0)["cost"] == pytest.approx(0.2)


def test_a_prefill_row_is_measured_by_the_products():
    turns = [PrefillTurn(seconds=2.0, flops_per_s=1000.0), PrefillTurn(seconds=4.0, flops_per_s=500.0)]
    row = prefill_row(2048, GRAPHS, turns, turns, 1400.0)
    assert (row["share_of_products"], row["cost"]) == (pytest.approx(0.7), 0)


def test_aims_are_of_the_engines_own_way():
    rows = [decode_row(1, way, [make_turn(0.1)], [make_turn(0.1)], 8.0) for way in WAYS]
    aims = engine_aims({"decode": rows, "prefill": []})
    assert [str(aim) for aim in aims] == [
        "MISSED: decode at batch 1: share of the memory's bound 80.0% (at least 85.0% asked)",
        "met: decode at batch 1: host gap, of a step 2.0% (at most 3.0% asked)",
    ]


def test_what_is_not_measured_is_neither_met_nor_missed():
    assert str(Aim(what="a move", value=None, most=0.1)) == "not measured: a move (at most 10.0% asked)"


# Turns


def test_all_turns_run_and_are_reported(monkeypatch, tmp_path, capsys):
    small = {"memory_bytes": 1 << 16, "product_size": 16}
    for name, stand_in in {
        "find_gpu": lambda name: torch.device("cpu"),
        "llama_3_8b": lambda: SMALL,
        "free_bytes": lambda device: 1 << 40,
        "environment": lambda device: {"gpu": "a CPU", "num_gpus": 1, "versions": {"torch": "0"}},
        "Plan": partial(Plan, **small),
    }.items():
        monkeypatch.setattr(gpu_engine, name, stand_in)
    few = {"batch_size": [1, 3], "prompt_tokens": 20, "new_tokens": 2, "repeats": 1}
    bench_engine(device="cuda", **few, quick=True, json_file=tmp_path / "engine.json")
    figures = json.loads((tmp_path / "engine.json").read_text())
    assert [(row["batch_size"], row["way"]) for row in figures["decode"]] == [(n, way) for n in (1, 3) for way in WAYS]
    assert [row["num_tokens"] for row in figures["prefill"]] == [64, 64]  # as many as this model takes
    assert all(row["share_of_bound"] > 0 and row["step_ms"] > 0 for row in figures["decode"])
    assert (figures["num_repeats"], figures["num_steps"], figures["dtype"]) == (1, 2, "bfloat16")
    assert len(figures["aims"]) == 2 * 2 + 1
    assert "share of bound" in capsys.readouterr().out
