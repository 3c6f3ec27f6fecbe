"""Makes the bundled model, `baton-tiny`: a small Llama in the Hugging Face layout, trained on synthetic English.

    python -m deploy.models.train_bundled

The text, the tokenizer and the weights are made here from fixed seeds; with one thread and the same number of steps,
the result is the same on the same kind of machine. The weights are written again and again while training runs, each
time by an atomic rename, so that an early checkpoint can be used.
"""

import argparse
import json
import math
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from deploy.models.corpus import documents
from deploy.models.corpus_chats import END, END_OF_TEXT, SPECIAL_TOKENS

OUTPUT = Path(__file__).parent / "baton-tiny"
SEED = 20_11
MAX_POSITIONS = 16_384
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """The shape of the model; the names are those of its config.json."""

    vocab_size: int = 2048
    hidden_size: int = 192
    intermediate_size: int = 512
    num_hidden_layers: int = 6
    num_attention_heads: int = 6
    num_key_value_heads: int = 2
    head_dim: int = 32
    rms_norm_eps: float = 1e-5
    rope_theta: float = 500_000.0


# ---------------------------------------------------------------------------------------------------------------- model


class Layer(nn.Module):
    """One decoder layer, with its projections fused for speed; they are split when the checkpoint is written."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        query_size = shape.num_attention_heads * shape.head_dim
        key_size = shape.num_key_value_heads * shape.head_dim
        self.sizes = [query_size, key_size, key_size]
        self.attention_norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.qkv = nn.Linear(shape.hidden_size, sum(self.sizes), bias=False)
        self.out = nn.Linear(query_size, shape.hidden_size, bias=False)
        self.mlp_norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        self.gate_up = nn.Linear(shape.hidden_size, 2 * shape.intermediate_size, bias=False)
        self.down = nn.Linear(shape.intermediate_size, shape.hidden_size, bias=False)

    def forward(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """`hidden` is [batch, length, hidden_size]; `cos` and `sin` are [batch, 1, length, head_dim]."""
        hidden = hidden + self.attend(self.attention_norm(hidden), cos, sin)
        gate, up = self.gate_up(self.mlp_norm(hidden)).chunk(2, dim=-1)
        out: Tensor = self.down(F.silu(gate) * up)
        return hidden + out

    def attend(self, hidden: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Causal grouped-query attention over [batch, length, hidden_size]."""
        batch, length, _ = hidden.shape
        heads = [
            part.view(batch, length, -1, self.shape.head_dim) for part in self.qkv(hidden).split(self.sizes, dim=-1)
        ]
        query, key, value = (part.transpose(1, 2) for part in heads)  # [batch, heads, length, head_dim]
        query, key = rotate(query, cos, sin), rotate(key, cos, sin)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True, enable_gqa=True)
        out: Tensor = self.out(attended.transpose(1, 2).reshape(batch, length, -1))
        return out


def rotate(heads: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of [batch, heads, length, head_dim], with the halves paired as in Llama."""
    first, second = heads.chunk(2, dim=-1)
    return heads * cos + torch.cat((-second, first), dim=-1) * sin


class Llama(nn.Module):
    """A Llama with tied embeddings."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embedding = nn.Embedding(shape.vocab_size, shape.hidden_size)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.num_hidden_layers))
        self.norm = nn.RMSNorm(shape.hidden_size, eps=shape.rms_norm_eps)
        for name, parameter in self.named_parameters():
            if parameter.dim() == 2:
                depth = (2 * shape.num_hidden_layers) ** 0.5 if name.endswith(("out.weight", "down.weight")) else 1.0
                nn.init.normal_(parameter, std=0.04 / depth)

    def forward(self, tokens: Tensor, positions: Tensor) -> Tensor:
        """Logits [batch, length, vocab_size] for `tokens` and `positions`, both [batch, length]."""
        steps = torch.arange(0, self.shape.head_dim, 2, dtype=torch.float32) / self.shape.head_dim
        angles = positions[:, None, :, None] * self.shape.rope_theta**-steps
        angles = torch.cat((angles, angles), dim=-1)
        cos, sin = angles.cos(), angles.sin()
        hidden = self.embedding(tokens)
        for layer in self.layers:
            hidden = layer(hidden, cos, sin)
        return F.linear(self.norm(hidden), self.embedding.weight)


# ----------------------------------------------------------------------------------------------------------------- data


def train_tokenizer(vocab_size: int) -> Tokenizer:
    """A byte-level BPE tokenizer of exactly `vocab_size` entries, the special tokens first."""
    source = documents(SEED)
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL_TOKENS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((without_specials(next(source)) for _ in range(6000)), trainer)
    if tokenizer.get_vocab_size() != vocab_size:
        raise ValueError(f"the corpus gives {tokenizer.get_vocab_size()} tokens, not {vocab_size}")
    return tokenizer


def without_specials(text: str) -> str:
    """`text` with its special tokens blanked, so that the merges never see them."""
    for token in SPECIAL_TOKENS:
        text = text.replace(token, "\n")
    return text


def token_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token, which the tokenizer must have."""
    found = tokenizer.token_to_id(token)
    assert found is not None, token
    return found


def encoded_stream(tokenizer: Tokenizer, count: int) -> Tensor:
    """At least `count` tokens of documents, each between two end-of-text tokens: [num_tokens]."""
    separator = token_id(tokenizer, END_OF_TEXT)
    tokens = [separator]
    source = documents(SEED + 1)
    while len(tokens) < count:
        for encoding in tokenizer.encode_batch([next(source) for _ in range(1000)]):
            tokens += encoding.ids
            tokens.append(separator)
    return torch.tensor(tokens)


@dataclass(frozen=True, slots=True)
class Batch:
    """Windows of the stream: `tokens` is [batch, length + 1], `positions` is [batch, length]."""

    tokens: Tensor
    positions: Tensor


def batches(stream: Tensor, separator: int, steps: int, tokens_per_step: int) -> Iterator[Batch]:
    """`steps` batches that walk through the stream, most of them of 256 tokens a window and some much longer.

    A batch has `tokens_per_step` tokens, or one window if that is longer.
    """
    rng = random.Random(SEED + 2)
    starts = (stream == separator).nonzero().flatten()
    cursor = 0
    for step in range(steps):
        length = window_length(rng, step / steps)
        windows = []
        for _ in range(max(1, tokens_per_step // length)):
            cursor = cursor if cursor + length + 2 < len(stream) else 0
            begin = cursor
            if rng.random() < 0.5:  # half of the windows start with a document, as a request does
                begin = int(starts[max(0, int(torch.searchsorted(starts, cursor, right=True)) - 1)]) + rng.randrange(2)
            windows.append(stream[begin : begin + length + 1])
            cursor += length
        positions = torch.stack([window_positions(rng, length) for _ in windows])
        yield Batch(torch.stack(windows), positions)


def window_length(rng: random.Random, progress: float) -> int:
    """Tokens in each window of a step; `progress` is the part of the training that is done."""
    if progress < 0.3:
        return 256
    return rng.choices((256, 1024, 2048), (0.75, 0.2, 0.05))[0]


def window_positions(rng: random.Random, length: int) -> Tensor:
    """Positions [length]; one window in four has gaps, so that distances up to the longest context are seen.

    After PoSE (Zhu et al., 2023): a short window stands for a long one if its positions skip.
    """
    positions = torch.arange(length)
    if rng.random() < 0.25:
        for _ in range(rng.randrange(1, 3)):
            room = MAX_POSITIONS - 1 - int(positions[-1])
            positions[rng.randrange(1, length) :] += int(room ** rng.random())
    return positions


# ----------------------------------------------------------------------------------------------------------- checkpoint


def checkpoint_tensors(model: Llama) -> dict[str, Tensor]:
    """The weights in bfloat16 by their names in a Hugging Face Llama; the embedding stands for the head, too."""
    tensors = {"model.embed_tokens.weight": model.embedding.weight, "model.norm.weight": model.norm.weight}
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        query, key, value = torch.split(layer.qkv.weight, layer.sizes)
        gate, up = layer.gate_up.weight.chunk(2)
        named = {
            "input_layernorm": layer.attention_norm.weight,
            "self_attn.q_proj": query,
            "self_attn.k_proj": key,
            "self_attn.v_proj": value,
            "self_attn.o_proj": layer.out.weight,
            "post_attention_layernorm": layer.mlp_norm.weight,
            "mlp.gate_proj": gate,
            "mlp.up_proj": up,
            "mlp.down_proj": layer.down.weight,
        }
        tensors |= {f"model.layers.{index}.{name}.weight": weight for name, weight in named.items()}
    return {name: weight.detach().to(torch.bfloat16).contiguous() for name, weight in tensors.items()}


def model_config(shape: Shape, tokenizer: Tokenizer) -> dict[str, object]:
    """The contents of config.json."""
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "max_position_embeddings": MAX_POSITIONS,
        "rms_norm_eps": shape.rms_norm_eps,
        "rope_theta": shape.rope_theta,
        "rope_scaling": None,
        "attention_bias": False,
        "mlp_bias": False,
        "attention_dropout": 0.0,
        "initializer_range": 0.04,
        "tie_word_embeddings": True,
        "use_cache": True,
        "bos_token_id": token_id(tokenizer, END_OF_TEXT),
        "eos_token_id": end_ids(tokenizer),
        "pad_token_id": token_id(tokenizer, END_OF_TEXT),
        "torch_dtype": "bfloat16",
    }


def end_ids(tokenizer: Tokenizer) -> list[int]:
    """The ids that end a text or a turn."""
    return [token_id(tokenizer, END_OF_TEXT), token_id(tokenizer, END)]


def write_settings(directory: Path, shape: Shape, tokenizer: Tokenizer) -> None:
    """Writes all of the checkpoint but the weights."""
    directory.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(directory / "tokenizer.json"))
    first = token_id(tokenizer, END_OF_TEXT)
    write_json(directory / "config.json", model_config(shape, tokenizer))
    write_json(
        directory / "generation_config.json",
        {
            "bos_token_id": first,
            "eos_token_id": end_ids(tokenizer),
            "pad_token_id": first,
            "do_sample": True,
            "temperature": 0.8,
        },
    )
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": MAX_POSITIONS,
            "bos_token": END_OF_TEXT,
            "eos_token": END_OF_TEXT,
            "pad_token": END_OF_TEXT,
            "additional_special_tokens": list(SPECIAL_TOKENS[1:]),
            "clean_up_tokenization_spaces": False,
            "chat_template": CHAT_TEMPLATE,
        },
    )


def write_json(path: Path, contents: dict[str, object]) -> None:
    """Writes `contents` as indented JSON."""
    path.write_text(json.dumps(contents, indent=2) + "\n")


def write_weights(directory: Path, model: Llama) -> None:
    """Replaces the weights in one step, so that a reader sees the old ones or the new ones."""
    temporary = directory / "model.safetensors.partial"
    save_file(checkpoint_tensors(model), temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)
    os.replace(temporary, directory / "model.safetensors")


# ------------------------------------------------------------------------------------------------------------- training


def make_optimizer(model: Llama, learning_rate: float) -> torch.optim.Optimizer:
    """AdamW with weight decay on the matrices only."""
    matrices = [parameter for parameter in model.parameters() if parameter.dim() == 2]
    others = [parameter for parameter in model.parameters() if parameter.dim() != 2]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.95), fused=True)


def rate_factor(step: int, steps: int, warm_up: int = 200) -> float:
    """The learning rate of `step` as a part of the highest: a linear warm-up, then a cosine down to two hundredths."""
    progress = min(1.0, max(0, step - warm_up) / max(1, steps - warm_up))
    return min(1.0, (step + 1) / warm_up) * (0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * progress)))


def train_step(model: Llama, optimizer: torch.optim.Optimizer, batch: Batch) -> float:
    """One step on one batch; returns its loss in nats a token."""
    logits = model(batch.tokens[:, :-1], batch.positions)
    loss = F.cross_entropy(logits.flatten(0, 1), batch.tokens[:, 1:].flatten())
    torch.autograd.backward(loss)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.item()


def train(options: argparse.Namespace) -> None:
    """Makes the tokenizer and the text, trains, and writes the checkpoint."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    shape = Shape()
    tokenizer = train_tokenizer(shape.vocab_size)
    write_settings(options.output, shape, tokenizer)
    stream = encoded_stream(tokenizer, options.steps * options.tokens_per_step)
    model = Llama(shape)
    optimizer = make_optimizer(model, options.learning_rate)
    print(f"{sum(p.numel() for p in model.parameters()):,} parameters, {len(stream):,} tokens of text", flush=True)
    began = saved = time.monotonic()
    average, seen = 0.0, 0
    for step, batch in enumerate(batches(stream, end_ids(tokenizer)[0], options.steps, options.tokens_per_step)):
        for group in optimizer.param_groups:
            group["lr"] = options.learning_rate * rate_factor(step, options.steps)
        loss = train_step(model, optimizer, batch)
        average = loss if step == 0 else 0.98 * average + 0.02 * loss
        seen += batch.positions.numel()
        now = time.monotonic()
        if step % 50 == 49:
            pace = f"{seen / (now - began):.0f} tokens/s {now - began:.0f} s"
            print(f"step {step + 1}/{options.steps} loss {average:.4f} {pace}", flush=True)
        if now - saved > options.save_every_s:
            write_weights(options.output, model)
            saved = now
        if now - began > 60 * options.minutes:
            break
    write_weights(options.output, model)
    print(f"done: {step + 1} steps, {seen:,} tokens, {now - began:.0f} s, loss {average:.4f}", flush=True)


def main() -> None:
    """Reads the command line and trains."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--steps", type=int, default=5400, help="optimizer steps; the learning rate falls over all of them"
    )
    parser.add_argument(
        "--minutes", type=float, default=math.inf, help="stop after so many minutes, wherever the steps stand"
    )
    parser.add_argument("--tokens-per-step", type=int, default=1024)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--save-every-s", type=float, default=240.0)
    parser.add_argument("--output", type=Path, default=OUTPUT)
    train(parser.parse_args())


if __name__ == "__main__":
    main()
