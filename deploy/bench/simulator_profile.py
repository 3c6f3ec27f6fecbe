"""The engine's step times on two cores at once, each beside the other as instances will be: a process a core.

`python -m deploy.bench.simulator_profile CORE MODEL MAX_PROMPT_TOKENS` prints what `baton profile` would write.
"""

import os
import subprocess
import sys
from pathlib import Path

from cluster.latency.fitted import FittedHardware
from cluster.latency.read import read_fitted
from deploy.errors import DeployError

_MAX_BATCH = 16
_TIMEOUT_S = 600.0


def profile_beside(model: Path, cores: list[int], max_prompt_tokens: int) -> list[FittedHardware]:
    """One for each core, measured at the same time. DeployError."""
    commands = [
        [sys.executable, "-m", "deploy.bench.simulator_profile", str(core), str(model), str(max_prompt_tokens)]
        for core in cores
    ]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    try:
        texts = [process.communicate(timeout=_TIMEOUT_S)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    if any(process.returncode for process in processes):
        raise DeployError("the engine's steps could not be timed; what went wrong is above")
    return [read_fitted(text, f"core {core}") for core, text in zip(cores, texts, strict=True)]


def main(core: int, model_path: str, max_prompt_tokens: int) -> None:
    os.sched_setaffinity(0, {core})
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as instances have it, read when torch is loaded
    from cluster.latency.write import format_fitted
    from deploy.profiling.profile import ProfileOptions, profile

    options = ProfileOptions(num_threads=1, max_prompt_tokens=max_prompt_tokens, max_batch=_MAX_BATCH)
    print(format_fitted(profile(Path(model_path), options).hardware))


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
