"""The bundled checkpoint is complete, small, and made from text without template leftovers."""

import json
import re
from itertools import islice

import jinja2
import pytest
from safetensors import safe_open
from tokenizers import Tokenizer

from deploy.models.corpus import documents
from deploy.models.train_bundled import CHAT_TEMPLATE, OUTPUT

pytestmark = pytest.mark.unit

LARGEST_CHECKPOINT_BYTES = 8 * 1024 * 1024


@pytest.fixture(scope="module")
def config() -> dict:
    return json.loads((OUTPUT / "config.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(OUTPUT / "tokenizer.json"))


def test_checkpoint_is_small() -> None:
    assert sum(file.stat().st_size for file in OUTPUT.iterdir()) <= LARGEST_CHECKPOINT_BYTES


def test_weights_have_the_shape_that_the_config_says(config: dict) -> None:
    with safe_open(OUTPUT / "model.safetensors", framework="pt") as weights:
        names = set(weights.keys())
        embedding = weights.get_slice("model.embed_tokens.weight")
        key = weights.get_slice("model.layers.0.self_attn.k_proj.weight")
        assert embedding.get_shape() == [config["vocab_size"], config["hidden_size"]]
        assert key.get_shape() == [config["num_key_value_heads"] * config["head_dim"], config["hidden_size"]]
        assert embedding.get_dtype() == "BF16"
    assert len(names) == 2 + 9 * config["num_hidden_layers"]
    assert "lm_head.weight" not in names  # tied


@pytest.mark.parametrize("text", ["Once upon a time.", "naïve café – 猫 🏃", "  two  spaces\n\tand a tab", ""])
def test_any_text_survives_the_tokenizer(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_tokenizer_fills_the_vocabulary(tokenizer: Tokenizer, config: dict) -> None:
    assert tokenizer.get_vocab_size() == config["vocab_size"]


def test_chat_template_writes_the_format_of_the_corpus(tokenizer: Tokenizer, config: dict) -> None:
    settings = json.loads((OUTPUT / "tokenizer_config.json").read_text())
    assert settings["chat_template"] == CHAT_TEMPLATE
    messages = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hello!"}]
    prompt = jinja2.Template(settings["chat_template"]).render(messages=messages, add_generation_prompt=True)
    assert prompt == "<|system|>\nBe kind.<|end|>\n<|user|>\nHello!<|end|>\n<|assistant|>\n"
    assert tokenizer.token_to_id("<|end|>") in config["eos_token_id"]
    assert tokenizer.encode(prompt).tokens.count("<|end|>") == 2


def test_same_seed_makes_the_same_text() -> None:
    assert list(islice(documents(7), 50)) == list(islice(documents(7), 50))


def test_text_has_no_template_leftovers() -> None:
    for document in islice(documents(8), 500):
        assert not re.search(r"[\[\]{}]|  | [.,]", document), document
