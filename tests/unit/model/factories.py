"""Random models, engines on them, and what transformers says of the same weights."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers

from cluster.engine.block_manager import BlockManager
from cluster.engine.engine import Engine
from cluster.engine.sampling_params import SamplingParams
from cluster.engine.scheduler import Scheduler, SchedulerConfig
from cluster.engine.sequence import Sequence
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner

BLOCK_SIZE = 8
VOCAB_SIZE = 320
LLAMA3_SCALING = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama-tied": {"tie_word_embeddings": True},
    "llama-mha-biased": {"num_key_value_heads": 4, "attention_bias": True},
    "llama-mqa-sharded": {"num_key_value_heads": 1, "num_shards": 3},
    "llama-3-scaling": {"rope_theta": 500_000.0, "rope_scaling": LLAMA3_SCALING},
    "qwen3": {"architecture": "Qwen3ForCausalLM", "head_dim": 32},
    "qwen3-tied-biased": {"architecture": "Qwen3ForCausalLM", "tie_word_embeddings": True, "attention_bias": True},
}


# Gone when this process ends.
_CHECKPOINTS = tempfile.TemporaryDirectory(prefix="baton-checkpoints-")


@functools.cache
def checkpoint(name: str) -> Path:
    return make_random_checkpoint(
        Path(_CHECKPOINTS.name, name), vocab_size=VOCAB_SIZE, **{"num_key_value_heads": 2, **SHAPES[name]}
    )


@functools.cache
def reference(name: str) -> Any:
    """The same weights in transformers, fp32."""
    model = transformers.AutoModelForCausalLM.from_pretrained(checkpoint(name), dtype=torch.float32).eval()
    model.generation_config.eos_token_id = None
    return model


def make_runner(name: str = "llama", *, num_blocks: int = 64, dtype: torch.dtype = torch.float32) -> ModelRunner:
    model = load_model(checkpoint(name), dtype)
    return ModelRunner(model, KVCache(num_blocks, *model.kv_shape(BLOCK_SIZE), dtype))


def make_engine(runner: ModelRunner, *, max_num_batched_tokens: int = 512) -> Engine:
    config = SchedulerConfig(
        max_num_seqs=32, max_num_batched_tokens=max_num_batched_tokens, watermark_blocks=0, max_model_len=1000
    )
    return Engine(Scheduler(config, BlockManager(runner.kv_cache.num_blocks, BLOCK_SIZE)), runner)


def rand(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def make_prompt(num_tokens: int, seed: int = 0) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(VOCAB_SIZE, (num_tokens,), generator=generator).tolist())


def make_sequence(
    prompt: int | tuple[int, ...] = 20, *, request_id: str = "a", arrival_time_s: float = 0.0, **params: Any
) -> Sequence:
    prompt_token_ids = make_prompt(prompt, seed=prompt) if isinstance(prompt, int) else prompt
    return Sequence(
        request_id=request_id,
        prompt_token_ids=prompt_token_ids,
        sampling_params=SamplingParams(**{"temperature": 0.0, "max_tokens": 64, **params}),
        arrival_time_s=arrival_time_s,
    )


def run(engine: Engine, *sequences: Sequence) -> int:
    """Adds all, runs to the end, and returns how often one of them was preempted."""
    for sequence in sequences:
        engine.scheduler.add(sequence)
    num_preemptions = 0
    while engine.scheduler.has_work:
        output = engine.scheduler.schedule()
        engine.scheduler.update(output, engine.runner.run(output) if output.scheduled else [])
        num_preemptions += len(output.preempted)
        engine.scheduler.check_integrity()
    return num_preemptions


@functools.cache
def reference_tokens(name: str, prompt_token_ids: tuple[int, ...], num_tokens: int = 64) -> list[int]:
    """What transformers generates greedily."""
    prompt = torch.tensor([prompt_token_ids])
    with torch.inference_mode():
        generated = reference(name).generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=num_tokens, do_sample=False, pad_token_id=0
        )
    return generated[0, prompt.shape[1] :].tolist()
