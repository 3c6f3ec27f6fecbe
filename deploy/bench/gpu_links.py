"""`baton bench links --device cuda`: what links do on a GPU, beside what that GPU's memory does."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from cluster.instance.config import HandoverConfig
from cluster.links.nccl import CupyDevice
from cluster.links.record_shape import RecordShape
from cluster.model.config import ModelConfig
from cluster.model.decoder import Decoder
from cluster.model.device import DeviceUnavailable, free_bytes, use_device
from cluster.model.gpu_options import GpuOptions
from cluster.model.kv_cache import KVCache
from cluster.model.kv_sizing import GIB
from cluster.model.random_weights import llama_3_8b, random_model
from cluster.model.runner import ModelRunner
from deploy.bench.engine_bound import kv_bytes_per_token
from deploy.bench.engine_turns import Prompts
from deploy.bench.gpu_copies import REGION_BYTES, SIZES, Copies, measure_copies
from deploy.bench.gpu_engine import BLOCK_SIZE, environment, find_gpu
from deploy.bench.gpu_leaving import measure_leaving
from deploy.bench.gpu_link_figures import copy_rows, link_aims
from deploy.bench.gpu_migration import (
    LinkedMover,
    LocalMover,
    Mover,
    Side,
    run_moved,
    run_undisturbed,
    same_share,
)
from deploy.bench.gpu_turns import start_decoding

NUM_MOVED, MOVED_TOKENS, NUM_NEW_TOKENS, NUM_BEFORE = 4, 500, 48, 16
BUDGETS = (HandoverConfig(), HandoverConfig(bytes_per_s=None))
"""The default, and one without a rate."""

SPARE_BYTES = 8 * GIB  # what steps take, and libraries

Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinksPlan:
    """What is copied, and what decodes while blocks leave: so many steps undisturbed, while they do, and again."""

    num_rounds: int
    sizes: tuple[int, ...] = SIZES
    region_bytes: int = REGION_BYTES
    batch_size: int = 16
    num_context_tokens: int = 1024
    num_steps: int = 32

    @property
    def num_new_tokens(self) -> int:
        return 3 * self.num_rounds * self.num_steps + 1


def run_links_on_gpu(device_name: str, *, num_rounds: int, quick: bool, show: Show) -> dict[str, Any]:
    """Raises DeviceUnavailable, NcclUnavailable, and DeployError for a link that fails."""
    device = find_gpu(device_name)
    links = CupyDevice(device.index or 0, cuda=torch.version.cuda)
    config, dtype = llama_3_8b(), torch.bfloat16
    plan = LinksPlan(num_rounds=min(num_rounds, 3) if quick else num_rounds)
    check_links_room(plan, config, dtype, free_bytes(device))
    use_device(device)
    figures = {**environment(device), **measure_links(links, device, config, dtype, plan, show)}
    return {**figures, "aims": [aim.to_dict() for aim in link_aims(figures)]}


def check_links_room(plan: LinksPlan, config: ModelConfig, dtype: torch.dtype, free: int) -> None:
    """Raises DeviceUnavailable that says how much is missing, and ValueError for more steps than the model has."""
    num_tokens = plan.num_context_tokens + plan.num_new_tokens
    if num_tokens > config.max_model_len:
        raise ValueError(f"{plan.num_rounds} rounds take {num_tokens} tokens, and the model {config.max_model_len}")
    kv_bytes = plan.batch_size * num_tokens * kv_bytes_per_token(config, dtype.itemsize)
    needed = config.num_parameters * dtype.itemsize + max(kv_bytes, 3 * plan.region_bytes) + SPARE_BYTES
    if free < needed:
        raise DeviceUnavailable(
            f"weights, KV and what is measured with take {needed / GIB:.1f} GiB, and the GPU has {free / GIB:.1f} GiB "
            f"free: {(needed - free) / GIB:.1f} GiB are missing"
        )


def measure_links(
    links: CupyDevice, device: torch.device, config: ModelConfig, dtype: torch.dtype, plan: LinksPlan, show: Show
) -> dict[str, Any]:
    """One after the other: copies, a migration, blocks that leave."""
    show("copies")
    shape = record_shape(config, dtype)
    copies = measure_copies(Copies(links, device, shape, plan.region_bytes), plan.sizes, plan.num_rounds)
    torch.cuda.empty_cache()
    show("making the model")
    model = random_model(config, dtype, device)
    show("a migration")
    migration = _measure_migration(model, links, show)
    use_device(device)
    show("blocks that leave")
    size, context = plan.batch_size, plan.num_context_tokens
    side, runner = make_side(model, links, size, context + plan.num_new_tokens)
    leaving = []
    for budget in BUDGETS:
        engine = start_decoding(runner, prompts(config, size, context), plan.num_new_tokens)
        row = measure_leaving(engine, side, budget, plan.num_steps, plan.num_rounds)
        leaving.append({"batch_size": size, "num_context_tokens": context, **row})
    return {
        "num_repeats": plan.num_rounds,
        "record_bytes": shape.record_bytes,
        "copies": copy_rows(copies),
        "migration": migration,
        "leaving": leaving,
    }


def _measure_migration(model: Decoder, links: CupyDevice, show: Show) -> dict[str, Any]:
    num_tokens = MOVED_TOKENS + NUM_NEW_TOKENS
    source, here = make_side(model, links, NUM_MOVED, num_tokens)
    with ExitStack() as stack:
        if links.num_devices == 1:
            target, there = make_side(model, links, NUM_MOVED, num_tokens)
            mover: Mover = LocalMover(source, target)
        else:
            show("a second model")
            other = torch.device("cuda", 1 - links.device_id)
            use_device(other)
            peer = random_model(model.config, model.dtype, other)
            target, there = make_side(peer, CupyDevice(other.index or 0), NUM_MOVED, num_tokens)
            use_device(source.kv_cache.tensor.device)
            mover = LinkedMover(source, target, stack)
        return migrate(here, there, mover, is_timed=links.num_devices > 1)


def migrate(here: ModelRunner, there: ModelRunner, mover: Mover, *, is_timed: bool) -> dict[str, Any]:
    """Twice: the first time sets up whatever there is to be set up. Without a second GPU the time means nothing."""
    config = here.model.config
    moving = prompts(config, NUM_MOVED, min(MOVED_TOKENS, config.max_model_len - NUM_NEW_TOKENS))
    right = run_undisturbed(here, moving, NUM_NEW_TOKENS)
    rounds = [run_moved(here, there, mover, moving, NUM_NEW_TOKENS, NUM_BEFORE) for _ in range(2)]
    tokens = [each for moved in rounds for each in moved.output_token_ids]
    return {
        "way": type(mover).__name__,
        "num_requests": len(moving),
        "num_bytes": rounds[-1].num_bytes,
        "same_tokens": same_share(tokens, right * len(rounds)),
        "same_kv": mean(same for moved in rounds for same in moved.has_same_kv),
        "stall_ms": 1000 * rounds[-1].stall_s if is_timed else None,
    }


def record_shape(config: ModelConfig, dtype: torch.dtype) -> RecordShape:
    return RecordShape(
        num_rows=2 * config.num_layers * BLOCK_SIZE,
        num_heads=config.num_kv_heads,
        head_bytes=config.head_dim * dtype.itemsize,
    )


def make_side(model: Decoder, links: CupyDevice, num_seqs: int, num_tokens: int) -> tuple[Side, ModelRunner]:
    """With a block to spare for each sequence, and some more."""
    num_blocks = num_seqs * (-(-num_tokens // BLOCK_SIZE) + 1) + 8
    shape = model.kv_shape(BLOCK_SIZE)
    kv_cache = KVCache(num_blocks, *shape, model.dtype, device=model.embedding.device)
    runner = ModelRunner(model, kv_cache, GpuOptions(max_num_seqs=num_seqs))
    return Side(kv_cache=kv_cache, links=links), runner


def prompts(config: ModelConfig, num_prompts: int, num_tokens: int) -> Prompts:
    generator = torch.Generator().manual_seed(0)
    drawn: Prompts = torch.randint(config.vocab_size, (num_prompts, num_tokens), generator=generator).tolist()
    return drawn
