"""The benchmarks on a real GPU, on a model that is too small for their figures to mean anything: all of it runs."""

from dataclasses import replace

import pytest
import torch

from cluster.instance.config import HandoverConfig
from cluster.links.nccl import CupyDevice
from cluster.links.nccl_device import NcclUnavailable
from cluster.model.random_weights import llama_3_8b, random_model
from deploy.bench.gpu_copies import Copies, measure_copies
from deploy.bench.gpu_engine import Plan, environment, measure
from deploy.bench.gpu_leaving import measure_leaving
from deploy.bench.gpu_link_figures import TOUCHED, copy_rows
from deploy.bench.gpu_links import make_side, migrate, prompts, record_shape
from deploy.bench.gpu_migration import LocalMover
from deploy.bench.gpu_turns import start_decoding

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

if not torch.cuda.is_available():
    pytest.skip("GPU tests need a GPU, and a torch that is built for it", allow_module_level=True)

DEVICE = torch.device("cuda", 0)
SMALL = replace(
    llama_3_8b(),
    vocab_size=512,
    hidden_size=256,
    intermediate_size=512,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=64,
    max_model_len=1024,
)


@pytest.fixture(scope="module")
def links() -> CupyDevice:
    try:
        return CupyDevice(0, cuda=torch.version.cuda)
    except NcclUnavailable as error:
        pytest.skip(f"links need cupy and NCCL: {error}")


def test_every_turn_of_the_engines_benchmark_runs():
    plan = Plan(
        batch_sizes=(1, 5),
        num_context_tokens=100,
        num_steps=8,
        prefill_tokens=(256,),
        num_repeats=2,
        memory_bytes=64 << 20,
        product_size=1024,
    )
    figures = measure(random_model(SMALL, torch.bfloat16, DEVICE), DEVICE, plan, lambda what, num_turns: None)
    own = [row for row in figures["decode"] if row["way"] == "graphs"]
    assert all(0 < row["host_gap_share"] < 1 and row["share_of_bound"] > 0 for row in own)
    assert environment(DEVICE)["gpu"]


def test_every_contestant_of_the_links_benchmark_runs(links):
    copies = Copies(links, DEVICE, record_shape(SMALL, torch.bfloat16), 64 << 20)
    rows = copy_rows(measure_copies(copies, (1 << 20, 16 << 20), 2))
    assert len(rows) == 2 * len(TOUCHED)


def test_requests_move_between_two_engines_on_one_gpu_with_the_same_tokens(links):
    model = random_model(SMALL, torch.bfloat16, DEVICE)
    (source, here), (target, there) = make_side(model, links, 4, 600), make_side(model, links, 4, 600)
    found = migrate(here, there, LocalMover(source, target), is_timed=False)
    assert (found["same_kv"], found["same_tokens"]) == (1, 1)


def test_steps_are_timed_while_blocks_leave(links):
    model = random_model(SMALL, torch.bfloat16, DEVICE)
    side, runner = make_side(model, links, 4, 400)
    engine = start_decoding(runner, prompts(SMALL, 4, 200), 150)
    found = measure_leaving(engine, side, HandoverConfig(), 16, 2)
    assert found["bytes_per_s"] > 0
