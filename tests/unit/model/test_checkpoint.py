import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cluster.model.config import ModelConfig
from cluster.model.errors import CheckpointError, UnsupportedParallelism
from cluster.model.load import load_model
from cluster.model.random_checkpoint import make_random_checkpoint

pytestmark = pytest.mark.unit

WEIGHTS = "model.safetensors"


@pytest.fixture
def path(tmp_path) -> Path:
    return make_random_checkpoint(tmp_path / "checkpoint")


def edit_config(path: Path, **changes) -> None:
    """None removes a field."""
    file = path / "config.json"
    values = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({name: value for name, value in values.items() if value is not None}))


def edit_weights(path: Path, edit) -> None:
    tensors = load_file(path / WEIGHTS)
    edit(tensors)
    save_file(tensors, path / WEIGHTS)


def assert_refused(path: Path, *, file: str, item: str | None, problem: str) -> None:
    with pytest.raises(CheckpointError, match=problem) as caught:
        load_model(path)
    assert caught.value.file == (path / file if file else path)
    assert caught.value.item == item
    assert str(caught.value.file) in str(caught.value)
    assert item is None or item in str(caught.value)


def test_a_missing_config_is_named(tmp_path):
    assert_refused(tmp_path, file="config.json", item=None, problem="cannot be read")


def test_a_config_that_is_not_json_is_named(path):
    (path / "config.json").write_text("{")
    assert_refused(path, file="config.json", item=None, problem="not JSON")


@pytest.mark.parametrize(
    ("changes", "item", "problem"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "architectures", "GPT2LMHeadModel is not supported"),
        ({"architectures": None}, "architectures", "none is not supported"),
        ({"hidden_size": None}, "hidden_size", "positive whole number"),
        ({"num_hidden_layers": "two"}, "num_hidden_layers", "not 'two'"),
        ({"num_key_value_heads": 3}, "num_key_value_heads", "does not divide 4"),
        ({"head_dim": 15}, "head_dim", "odd"),
        ({"hidden_act": "gelu"}, "hidden_act", "gelu"),
        ({"mlp_bias": True}, "mlp_bias", "not supported"),
        ({"quantization_config": {"bits": 4}}, "quantization_config", "not supported"),
        ({"use_sliding_window": True}, "use_sliding_window", "not supported"),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types", "full_attention"),
        ({"rms_norm_eps": -1}, "rms_norm_eps", "positive number"),
        ({"attention_bias": "yes"}, "attention_bias", "true or false"),
        ({"tie_word_embeddings": 1}, "tie_word_embeddings", "true or false"),
        ({"rope_parameters": {"rope_type": "yarn", "factor": 4.0}}, "rope_type", "'yarn' is not supported"),
        ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope_type", "'linear' is not supported"),
        ({"rope_parameters": {"rope_type": "llama3"}}, "factor", "positive number"),
        ({"rope_parameters": {"partial_rotary_factor": 0.5}}, "partial_rotary_factor", "only 1.0"),
        ({"rope_parameters": [1]}, "rope_parameters", "an object"),
        ({"eos_token_id": "</s>"}, "eos_token_id", "token id"),
        ({"dtype": "float16"}, "dtype", "ask for one of them"),
    ],
)
def test_a_config_that_cannot_be_served_is_refused_by_its_field(path, changes, item, problem):
    edit_config(path, **changes)
    assert_refused(path, file="config.json", item=item, problem=problem)


def test_missing_weights_are_named(path):
    (path / WEIGHTS).unlink()
    assert_refused(path, file="", item=None, problem="neither model.safetensors nor")


def test_truncated_weights_are_named(path):
    file = path / WEIGHTS
    file.write_bytes(file.read_bytes()[:-100])
    assert_refused(path, file=WEIGHTS, item=None, problem="truncated")


def test_a_missing_shard_is_named(tmp_path):
    make_random_checkpoint(tmp_path, num_shards=2)
    (tmp_path / "model-00002-of-00002.safetensors").unlink()
    assert_refused(tmp_path, file="model-00002-of-00002.safetensors", item=None, problem="missing")


def test_a_tensor_that_the_index_promises_and_the_shard_lacks_is_named(tmp_path):
    make_random_checkpoint(tmp_path, num_shards=2)
    index = tmp_path / "model.safetensors.index.json"
    values = json.loads(index.read_text())
    values["weight_map"]["model.norm.weight"] = "model-00001-of-00002.safetensors"
    values["weight_map"]["model.embed_tokens.weight"] = "model-00002-of-00002.safetensors"
    index.write_text(json.dumps(values))
    name = "model.embed_tokens.weight"
    assert_refused(tmp_path, file="model-00002-of-00002.safetensors", item=name, problem="cannot be read")


def test_a_missing_tensor_is_named(path):
    name = "model.layers.1.self_attn.k_proj.weight"
    edit_weights(path, lambda tensors: tensors.pop(name))
    assert_refused(path, file="", item=name, problem="missing")


def test_a_tensor_of_the_wrong_shape_is_named(path):
    name = "model.layers.0.mlp.up_proj.weight"
    edit_weights(path, lambda tensors: tensors.update({name: torch.zeros(176, 65)}))
    assert_refused(path, file=WEIGHTS, item=name, problem=r"shape \(176, 65\), config.json asks for \(176, 64\)")


def test_a_tensor_that_no_module_uses_is_refused(path):
    name = "model.layers.0.self_attn.q_proj.bias"
    edit_weights(path, lambda tensors: tensors.update({name: torch.zeros(64)}))
    assert_refused(path, file=WEIGHTS, item=name, problem="not a tensor of this architecture")


def test_a_config_of_transformers_4_is_read_like_one_of_transformers_5(path):
    scaling = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64, "factor": 8.0}
    edit_config(path, rope_parameters={"rope_type": "llama3", "rope_theta": 5e5, **scaling}, dtype="bfloat16")
    new = ModelConfig.from_checkpoint(path)
    edit_config(path, rope_parameters=None, rope_scaling={"type": "llama3", **scaling}, rope_theta=5e5)
    edit_config(path, dtype=None, torch_dtype="bfloat16")
    assert ModelConfig.from_checkpoint(path) == new
    assert (new.rope_theta, new.dtype) == (5e5, "bfloat16")
    assert new.rope_scaling is not None


def test_all_ids_that_end_a_text_are_found(path):
    (path / "generation_config.json").write_text(json.dumps({"eos_token_id": [300, 257]}))
    assert ModelConfig.from_checkpoint(path).eos_token_ids == (256, 257, 300)
    edit_config(path, eos_token_id=5)
    assert ModelConfig.from_checkpoint(path).eos_token_ids == (5, 300, 257)


def test_a_shard_counts_the_heads_of_its_rank(path):
    shard = ModelConfig.from_checkpoint(path).shard(1, 2)
    assert (shard.num_heads, shard.num_kv_heads, shard.intermediate_size) == (2, 1, 88)


@pytest.mark.parametrize(
    ("changes", "world_size", "problem"),
    [
        ({}, 4, "4 ranks cannot share 2 KV heads"),
        ({"num_attention_heads": 6, "num_key_value_heads": 6}, 4, "4 ranks cannot share 6 KV heads"),
        ({"num_key_value_heads": 4, "intermediate_size": 174}, 4, r"174 MLP columns \(intermediate_size\)"),
    ],
)
def test_ranks_that_cannot_share_a_model_are_refused_clearly(path, changes, world_size, problem):
    edit_config(path, **changes)
    with pytest.raises(UnsupportedParallelism, match=problem):
        ModelConfig.from_checkpoint(path).shard(0, world_size)
