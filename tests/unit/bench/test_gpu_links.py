"""`baton bench links --device cuda` without a GPU: its refusals, its arithmetic, and all it does, on a fake one.

Engines compute on the CPU, on KV that the fake takes for a GPU's memory.
"""

import ctypes
import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import typer
from rich.console import Console

from cluster.instance.config import HandoverConfig
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from cluster.model.device import DeviceUnavailable
from cluster.model.random_weights import llama_3_8b, random_model
from deploy.bench import gpu_links
from deploy.bench.gpu_leaving import measure_leaving
from deploy.bench.gpu_link_figures import CHECKSUM, COPY, PACK, TOUCHED, UNPACK, copy_rows, link_aims, slowdown
from deploy.bench.gpu_links import LinksPlan, check_links_room, make_side, migrate, prompts, record_shape
from deploy.bench.gpu_migration import LinkedMover, run_moved
from deploy.bench.gpu_report import print_links
from deploy.bench.gpu_turns import start_decoding
from deploy.bench.links import bench_links
from tests.unit.bench.small_shape import SMALL
from tests.unit.links.fake_nccl import FakeCupy, World

pytestmark = pytest.mark.unit

SHAPE = replace(SMALL, max_model_len=128)
CPU = torch.device("cpu")


class ProcessWorld(World):
    """Whose GPU's memory is all of this process's."""

    def view(self, pointer: int, num_bytes: int) -> np.ndarray:
        try:
            return super().view(pointer, num_bytes)
        except MemoryError:
            return np.ctypeslib.as_array((ctypes.c_uint8 * num_bytes).from_address(pointer))


@pytest.fixture
def world() -> Iterator[World]:
    world = ProcessWorld()
    yield world
    world.close()
    assert not world.violations, world.violations


def make_links(world: World) -> CupyDevice:
    links = CupyDevice(0, FakeCupy(world))
    links.bind()
    return links


# Refusals


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_one_line_says_so():
    with pytest.raises(typer.BadParameter) as caught:
        bench_links(device="cuda")
    assert caught.value.param_hint == "--device"
    assert "\n" not in str(caught.value)


def test_a_gpu_without_cupy_is_refused_in_one_line(monkeypatch):
    def refuse(*arguments: object, **options: object) -> None:
        raise NcclUnavailable("no cupy: pip install 'baton[gpu]'")

    monkeypatch.setattr(gpu_links, "find_gpu", lambda name: torch.device("cuda", 0))
    monkeypatch.setattr(gpu_links, "CupyDevice", refuse)
    with pytest.raises(typer.BadParameter, match="no cupy"):
        bench_links(device="cuda")


def test_one_process_or_two_are_measured():
    with pytest.raises(typer.BadParameter, match="between two processes"):
        bench_links(device="cuda", nccl=True)


# Arithmetic


def test_shares_are_of_the_bytes_that_a_plain_copy_touches():
    seconds = {COPY: {8: [1.0, 3.0]}, PACK: {8: [1.25, 3.0]}, CHECKSUM: {8: [0.5, 3.0]}}
    rows = {row["what"]: row for row in copy_rows(seconds)}
    assert rows[COPY]["share_of_copy"] == 1
    assert rows[PACK]["share_of_copy"] == pytest.approx((0.8 + 1) / 2)
    assert rows[CHECKSUM]["share_of_copy"] == pytest.approx((1 + 0.5) / 2)  # it only reads
    assert rows[COPY]["bytes_per_s"] == 4


def test_a_slowdown_is_against_the_steps_around_it():
    assert slowdown([(1.0, 1.0), (1.0, 3.0), (4.0, 4.0)], [1.01, 2.04, 4.4]) == pytest.approx(0.02)


def test_aims_judge_the_largest_copies():
    rows = [
        {"what": what, "num_bytes": size, "share_of_copy": share}
        for what, size, share in ((PACK, 1, 0.1), (PACK, 2, 0.9), (UNPACK, 2, 0.7), (CHECKSUM, 2, 0.1))
    ]
    figures = {"copies": rows, "migration": {"same_tokens": 1.0, "same_kv": 1.0}, "leaving": [{"slowdown": 0.016}]}
    assert [aim.is_met for aim in link_aims(figures)] == [True, False, True, True, False]


# On a fake GPU


def test_all_of_it_runs_and_is_reported(world, monkeypatch, tmp_path):
    record_bytes = record_shape(SHAPE, torch.bfloat16).record_bytes
    small = {"sizes": (2 * record_bytes, 4 * record_bytes), "region_bytes": 8 * record_bytes}
    small |= {"batch_size": 2, "num_context_tokens": 20, "num_steps": 3}
    for name, stand_in in {
        "find_gpu": lambda name: CPU,
        "CupyDevice": lambda index, cuda: make_links(world),
        "llama_3_8b": lambda: SHAPE,
        "free_bytes": lambda device: 1 << 40,
        "environment": lambda device: {"gpu": "a fake", "num_gpus": 1, "versions": {}},
        "LinksPlan": partial(LinksPlan, **small),
    }.items():
        monkeypatch.setattr(gpu_links, name, stand_in)
    bench_links(device="cuda", rounds=1, quick=True, json_path=tmp_path / "links.json")
    figures = json.loads((tmp_path / "links.json").read_text())
    assert len(figures["copies"]) == len(TOUCHED) * 2
    assert all(row["seconds"] > 0 and row["share_of_copy"] > 0 for row in figures["copies"])
    assert figures["num_repeats"] == 1
    assert [aim["what"] for aim in figures["aims"] if aim["is_met"] and "migration" in aim["what"]] == [
        "migration: requests with the same KV, byte for byte",
        "migration: requests with the same tokens",
    ]
    assert figures["migration"]["stall_ms"] is None
    assert [row["most_bytes_per_s"] for row in figures["leaving"]] == [10_000_000_000, None]


def test_a_gpu_that_is_too_small_or_too_many_rounds_are_told():
    config, plan = llama_3_8b(), LinksPlan(num_rounds=15)
    check_links_room(plan, config, torch.bfloat16, 60 << 30)
    with pytest.raises(DeviceUnavailable, match=r"has 24.0 GiB free: \d+\.\d GiB are missing"):
        check_links_room(plan, config, torch.bfloat16, 24 << 30)
    with pytest.raises(ValueError, match="100 rounds take"):
        check_links_room(LinksPlan(num_rounds=100), config, torch.bfloat16, 60 << 30)


def test_requests_that_move_over_a_link_go_on_with_the_same_tokens(world):
    model = random_model(SHAPE, torch.float32, CPU)
    source, here = make_side(model, make_links(world), 4, 100)
    target, there = make_side(model, make_links(world), 4, 100)
    with ExitStack() as stack:
        found = migrate(here, there, LinkedMover(source, target, stack), is_timed=True)
    assert (found["same_tokens"], found["same_kv"]) == (1, 1)
    assert found["num_bytes"] > 0
    assert found["stall_ms"] > 0


def test_what_arrives_wrong_is_seen(world):
    model = random_model(SHAPE, torch.float32, CPU)
    links = make_links(world)
    (_, here), (_, there) = make_side(model, links, 2, 60), make_side(model, links, 2, 60)

    class Idle:
        def move(self, source_ids: object, target_ids: object) -> None:
            pass

    moved = run_moved(here, there, Idle(), prompts(SHAPE, 2, 40), 12, 3)
    assert moved.has_same_kv == [False, False]


def test_steps_are_timed_while_blocks_leave_within_the_budget(world):
    model = random_model(SHAPE, torch.float32, CPU)
    side, runner = make_side(model, make_links(world), 2, 60)
    engine = start_decoding(runner, prompts(SHAPE, 2, 20), 40)
    record_bytes = side.kv_cache.record_bytes
    budget = HandoverConfig(
        piece_bytes=2 * record_bytes, max_bytes_in_flight=3 * record_bytes, bytes_per_s=1000 * record_bytes
    )
    found = measure_leaving(engine, side, budget, 5, 2)
    assert found["bytes_per_s"] > 0
    assert found["still_step_ms"] > 0
    assert found["slowdown"] > -1


def test_a_sender_that_fails_fails_the_measurement(world, monkeypatch):
    model = random_model(SHAPE, torch.float32, CPU)
    side, runner = make_side(model, make_links(world), 2, 60)
    engine = start_decoding(runner, prompts(SHAPE, 2, 20), 40)

    def fail(*arguments: object) -> None:
        raise RuntimeError("no more")

    monkeypatch.setattr(side.links, "pack", fail, raising=False)
    with pytest.raises(RuntimeError, match="no more"):
        measure_leaving(engine, side, HandoverConfig(), 3, 1)


def test_the_report_says_what_was_not_timed():
    rows = [
        {"what": what, "num_bytes": 8 << 20, "seconds": 1e-5, "bytes_per_s": 1e12, "share_of_copy": 0.9}
        for what in TOUCHED
    ]
    figures = {
        "gpu": "a GPU",
        "num_gpus": 1,
        "versions": {"torch": "0"},
        "num_repeats": 3,
        "record_bytes": 2 << 20,
        "copies": rows,
        "migration": {
            "way": "LocalMover",
            "num_requests": 4,
            "num_bytes": 1 << 28,
            "same_tokens": 1.0,
            "same_kv": 1.0,
            "stall_ms": None,
        },
        "leaving": [
            {
                "batch_size": 16,
                "bytes_per_s": 4e10,
                "most_bytes_per_s": None,
                "max_bytes_in_flight": 32 << 20,
                "leaving_step_ms": 8.1,
                "still_step_ms": 8.0,
                "slowdown": 0.0125,
            }
        ],
    }
    console = Console(file=io.StringIO(), width=140)
    print_links(figures, console)
    assert "not timed: there is one GPU" in console.file.getvalue()
    assert "met: a decode step while blocks leave: slower by 1.2%" in console.file.getvalue()
