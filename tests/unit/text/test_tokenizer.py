"""What is read from a checkpoint's tokenizer files, and what is said when they are broken."""

import json
from pathlib import Path

import pytest

from cluster.text.checkpoint_json import CheckpointTextError
from cluster.text.tokenizer import Tokenizer
from tests.unit.text.factories import CHAT_TEMPLATE, EOS, write_checkpoint

pytestmark = pytest.mark.unit


def test_text_survives_the_way_to_tokens_and_back(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_checkpoint(write_checkpoint(tmp_path))
    assert tokenizer.decode(tokenizer.encode("Grüße, 世界 🙂")) == "Grüße, 世界 🙂"


def test_special_tokens_are_one_token_and_no_text(tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_checkpoint(write_checkpoint(tmp_path))
    token_ids = tokenizer.encode(f"a{EOS}b")
    assert len(token_ids) == 3
    assert tokenizer.decode(token_ids) == "ab"


def test_eos_ids_are_those_of_the_generation_config_and_the_tokenizer(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, generation_config={"eos_token_id": [3, 7]}, config={"eos_token_id": 9})
    assert Tokenizer.from_checkpoint(path).eos_token_ids == {0, 3, 7}


def test_eos_ids_come_from_the_model_config_where_there_is_no_generation_config(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path, tokenizer_config={}, config={"eos_token_id": 9})
    assert Tokenizer.from_checkpoint(path).eos_token_ids == {9}


def test_a_truncation_left_in_the_file_does_not_cut_prompts(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    content = json.loads((path / "tokenizer.json").read_text())
    content["truncation"] = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
    (path / "tokenizer.json").write_text(json.dumps(content))
    tokenizer = Tokenizer.from_checkpoint(path)
    assert tokenizer.decode(tokenizer.encode("a long enough prompt")) == "a long enough prompt"


def test_special_tokens_are_variables_of_the_chat_template(tmp_path: Path) -> None:
    config = {"bos_token": {"content": "<s>", "special": True}, "chat_template": "{{ bos_token }}{{ messages|length }}"}
    template = Tokenizer.from_checkpoint(write_checkpoint(tmp_path, tokenizer_config=config)).chat_template
    assert template is not None
    assert template.render([{"role": "user", "content": "hi"}]) == "<s>1"


def test_a_template_file_counts_before_the_configuration(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path)
    (path / "chat_template.jinja").write_text("from the file")
    template = Tokenizer.from_checkpoint(path).chat_template
    assert template is not None
    assert template.render([]) == "from the file"


def test_of_named_templates_the_default_is_taken(tmp_path: Path) -> None:
    templates = [{"name": "tool_use", "template": "tools"}, {"name": "default", "template": CHAT_TEMPLATE}]
    path = write_checkpoint(tmp_path, tokenizer_config={"chat_template": templates})
    template = Tokenizer.from_checkpoint(path).chat_template
    assert template is not None
    assert template.render([{"role": "user", "content": "hi"}]) == "<|user|>hi<|end|><|assistant|>"


def test_a_checkpoint_without_a_template_has_none(tmp_path: Path) -> None:
    assert Tokenizer.from_checkpoint(write_checkpoint(tmp_path, tokenizer_config={})).chat_template is None


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("tokenizer.json", None, "does not exist"),
        ("tokenizer.json", "{", "is not a tokenizer"),
        ("tokenizer_config.json", "{", "is not JSON"),
        ("tokenizer_config.json", "[]", "should hold a JSON object"),
        ("tokenizer_config.json", json.dumps({"chat_template": "{% if %}"}), "chat template is not valid"),
    ],
)
def test_a_broken_file_is_named(tmp_path: Path, file: str, content: str | None, said: str) -> None:
    path = write_checkpoint(tmp_path)
    (path / file).unlink()
    if content is not None:
        (path / file).write_text(content)
    with pytest.raises(CheckpointTextError, match=said) as raised:
        Tokenizer.from_checkpoint(path)
    assert str(path / file) in str(raised.value)
