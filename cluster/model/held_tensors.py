"""What a running model holds, under the names that its checkpoint has for it: the way back from what loading makes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from torch import Tensor

from cluster.model.decoder import Decoder, DecoderLayer
from cluster.model.layers import GatedMLP, SelfAttention
from cluster.model.parallel import RowParallel
from cluster.model.rope import unpair_rows


@dataclass(frozen=True, slots=True)
class HeldTensor:
    """`read` gives it as it was loaded; nothing is kept of it meanwhile but what the model computes with."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def held_tensors(model: Decoder) -> dict[str, HeldTensor]:
    """By name; of several ranks, the parts that this one holds."""
    tensors = {
        "model.embed_tokens.weight": _as_it_is(model.embedding),
        "model.norm.weight": _as_it_is(model.norm.weight),
    }
    for index, layer in enumerate(model.layers):
        tensors |= {f"model.layers.{index}.{name}": tensor for name, tensor in _of_layer(layer, model.config.head_dim)}
    if not model.config.tie_word_embeddings:
        size = model.shard.vocab_size
        num_rows = min(size, model.config.vocab_size - min(size * model.shard.rank, model.config.vocab_size))
        head = model.lm_head
        tensors["lm_head.weight"] = HeldTensor((num_rows, head.in_features), lambda: head.weight[:num_rows])
    return tensors


def _of_layer(layer: DecoderLayer, head_dim: int) -> Iterator[tuple[str, HeldTensor]]:
    yield "input_layernorm.weight", _as_it_is(layer.attention_norm.weight)
    yield "post_attention_layernorm.weight", _as_it_is(layer.mlp_norm.weight)
    yield from ((f"self_attn.{name}", tensor) for name, tensor in _of_attention(layer.attention, head_dim))
    yield from ((f"mlp.{name}", tensor) for name, tensor in _of_mlp(layer.mlp))


def _of_attention(attention: SelfAttention, head_dim: int) -> Iterator[tuple[str, HeldTensor]]:
    qkv, output, first = attention.qkv, attention.output, 0
    heads = {"q_proj": attention.num_heads, "k_proj": attention.num_kv_heads, "v_proj": attention.num_kv_heads}
    for name, num_heads in heads.items():
        rows = slice(first, first + num_heads * head_dim)
        first = rows.stop
        restore = _unpair(head_dim) if name != "v_proj" else _same
        yield f"{name}.weight", _rows(qkv.weight, rows, restore, qkv.in_features)
        if (bias := qkv.bias) is not None:
            yield f"{name}.bias", _rows(bias, rows, restore)
    yield "o_proj.weight", _as_it_is(output.weight)
    if (bias := output.whole_bias if isinstance(output, RowParallel) else output.bias) is not None:
        yield "o_proj.bias", _as_it_is(bias)
    if (norm := attention.head_norm) is not None:
        for name, row in (("q_norm", 0), ("k_norm", -1)):
            yield f"{name}.weight", HeldTensor((head_dim,), lambda row=row: unpair_rows(norm.weight[row], head_dim))  # type: ignore[misc]


def _of_mlp(mlp: GatedMLP) -> Iterator[tuple[str, HeldTensor]]:
    size = mlp.down.in_features
    for name, start in (("gate_proj", 0), ("up_proj", size)):
        yield f"{name}.weight", _rows(mlp.gate_up.weight, slice(start, start + size), _same, mlp.gate_up.in_features)
    yield "down_proj.weight", _as_it_is(mlp.down.weight)


def _rows(whole: Tensor, rows: slice, restore: Callable[[Tensor], Tensor], *width: int) -> HeldTensor:
    return HeldTensor((rows.stop - rows.start, *width), lambda: restore(whole[rows]))


def _as_it_is(tensor: Tensor) -> HeldTensor:
    return HeldTensor(tuple(tensor.shape), lambda: tensor)


def _unpair(head_dim: int) -> Callable[[Tensor], Tensor]:
    return lambda rows: unpair_rows(rows, head_dim)


def _same(rows: Tensor) -> Tensor:
    return rows
