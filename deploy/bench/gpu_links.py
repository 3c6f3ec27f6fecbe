"""`baton bench links --device cuda`: what links do on a GPU, beside what that GPU's memory does."""

from collections.abc import Callable
from contextlib import ExitStack
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
BATCH_SIZE, CONTEXT_TOKENS, STEPS = 16, 1024, 32
SPARE_BYTES = 8 * GIB

Show = Callable[[str], None]


def run_links_on_gpu(device_name: str, *, num_rounds: int, quick: bool, show: Show) -> dict[str, Any]:
    """Raises DeviceUnavailable, NcclUnavailable, and RuntimeError for a link that fails."""
    device = find_gpu(device_name)
    links = CupyDevice(device.index or 0, cuda=torch.version.cuda)
    config, dtype = llama_3_8b(), torch.bfloat16
    num_rounds = min(num_rounds, 3) if quick else num_rounds
    num_needed = config.num_parameters * dtype.itemsize + 4 * REGION_BYTES + SPARE_BYTES
    if (free := free_bytes(device)) < num_needed:
        missing = (num_needed - free) / GIB
        raise DeviceUnavailable(f"the GPU has {free / GIB:.1f} GiB free: {missing:.1f} GiB are missing")
    use_device(device)
    show("copies")
    shape = record_shape(config, dtype)
    copies = measure_copies(Copies(links, device, shape, REGION_BYTES), SIZES, num_rounds)
    torch.cuda.empty_cache()
    show("making the model")
    model = random_model(config, dtype, device)
    show("a migration")
    migration = _measure_migration(model, links, show)
    show("blocks that leave")
    side, runner = make_side(model, links, BATCH_SIZE, CONTEXT_TOKENS + 4 * num_rounds * STEPS)
    engine = start_decoding(runner, prompts(config, BATCH_SIZE, CONTEXT_TOKENS), 4 * num_rounds * STEPS)
    leaving = measure_leaving(engine, side, HandoverConfig(), STEPS, num_rounds)
    figures: dict[str, Any] = {
        **environment(device),
        "num_repeats": num_rounds,
        "record_bytes": shape.record_bytes,
        "copies": copy_rows(copies),
        "migration": migration,
        "leaving": {"batch_size": BATCH_SIZE, "num_context_tokens": CONTEXT_TOKENS, **leaving},
    }
    return {**figures, "aims": [aim.to_dict() for aim in link_aims(figures)]}


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
