"""What a process that computes would find of GPUs on this machine. Asked in a process of its own, which ends with it:
neither torch nor a CUDA context stays behind in a command.
"""

import json
import subprocess
import sys

from cluster.spec.gpu_checks import GpusHere
from deploy.errors import DeployError

_TIMEOUT_S = 120.0


def gpus_here() -> GpusHere:
    """Raises DeployError."""
    command = [sys.executable, "-m", "deploy.gpus_here"]
    try:
        found = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True)
        said = json.loads(found.stdout)
    except subprocess.CalledProcessError as error:
        raise DeployError(f"this machine does not say which GPUs it has: {_last_line(error)}") from error
    except (subprocess.SubprocessError, OSError, ValueError) as error:
        raise DeployError(f"this machine does not say which GPUs it has: {error}") from error
    return GpusHere(memory_bytes=tuple(said["memory_bytes"]), flaw=said["flaw"])


def _last_line(error: subprocess.CalledProcessError) -> str:
    """Of a traceback, what was raised."""
    said = error.stderr.strip().splitlines()
    return said[-1] if said else str(error)


def _look() -> GpusHere:
    import torch

    from cluster.links.nccl import CupyDevice
    from cluster.links.nccl_device import NcclUnavailable
    from cluster.model.device import DeviceUnavailable, find_device

    try:
        find_device("cuda")
    except DeviceUnavailable as error:
        return GpusHere(flaw=str(error))
    gpus = range(torch.cuda.device_count())
    memory_bytes = tuple(torch.cuda.get_device_properties(index).total_memory for index in gpus)
    try:
        CupyDevice(0, cuda=torch.version.cuda)
    except NcclUnavailable as error:
        return GpusHere(memory_bytes, str(error))
    return GpusHere(memory_bytes)


if __name__ == "__main__":
    gpus = _look()
    print(json.dumps({"memory_bytes": gpus.memory_bytes, "flaw": gpus.flaw}))
