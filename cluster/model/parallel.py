"""How the ranks of one model put together what each of them computed a part of (Megatron-LM, arXiv:1909.08053, 3).

Heads and MLP columns are split; a layer's two output projections then give parts of a sum, added up over all ranks.
The vocabulary is split too, and gathered on rank 0, where sampling happens.
"""

import os
from datetime import timedelta
from typing import Any, Protocol

import torch
import torch.distributed
from torch import Tensor

from cluster.model.linear import Linear

# Its classes are exported by its extension only; type checkers do not see them.
distributed: Any = torch.distributed


class Communicator(Protocol):
    """All ranks call the same methods in the same order, with tensors of the same shape."""

    rank: int
    world_size: int

    def all_reduce(self, tensor: Tensor) -> Tensor:
        """The sum over all ranks, in place."""
        ...

    def gather_columns(self, tensor: Tensor) -> Tensor | None:
        """On rank 0 what all ranks hold, side by side in the last dimension; None on the others."""
        ...

    def abort(self) -> None:
        """From any thread: a collective that is under way fails at once, and so does every later one."""
        ...


class Alone:
    """One rank holds the whole model."""

    rank = 0
    world_size = 1

    def all_reduce(self, tensor: Tensor) -> Tensor:
        return tensor

    def gather_columns(self, tensor: Tensor) -> Tensor | None:
        return tensor

    def abort(self) -> None:
        pass


class TorchCommunicator:
    """Over a process group of torch.distributed: gloo on a CPU, NCCL on CUDA. It is no global group: a process may
    have several.

    With NCCL both calls are put on the current stream and return: the host waits for nothing, and CUDA graphs can
    record them.
    """

    def __init__(self, group: Any, rank: int, world_size: int) -> None:
        self.rank = rank
        self.world_size = world_size
        self._group = group
        self._reduce, self._gather = distributed.AllreduceOptions(), distributed.GatherOptions()
        self._reduce.asyncOp = self._gather.asyncOp = False  # on the current stream, not on one of the group's
        self._gather.rootRank = 0

    def all_reduce(self, tensor: Tensor) -> Tensor:
        _finish(self._group.allreduce([tensor], self._reduce))
        return tensor

    def gather_columns(self, tensor: Tensor) -> Tensor | None:
        tensor = tensor.contiguous()
        if self.rank:
            _finish(self._group.gather([], [tensor], self._gather))
            return None
        parts = [torch.empty_like(tensor) for _ in range(self.world_size)]
        _finish(self._group.gather([parts], [tensor], self._gather))
        return torch.cat(parts, dim=-1)

    def abort(self) -> None:
        self._group.abort()


def _finish(work: Any) -> None:
    """NCCL gives none for what it has put on the current stream."""
    if work is not None:
        work.wait()


class RowParallel(Linear):
    """A product of which each rank holds some columns of W, for as many of x: the sum of all ranks' is the whole."""

    def __init__(self, weight: Tensor, bias: Tensor | None, communicator: Communicator) -> None:
        super().__init__(weight, bias if communicator.rank == 0 else None)  # it is added once
        self.whole_bias = bias
        self._communicator = communicator

    def __call__(self, rows: Tensor) -> Tensor:
        return self._communicator.all_reduce(super().__call__(rows))


def row_parallel(weight: Tensor, bias: Tensor | None, communicator: Communicator) -> Linear:
    """`weight` is this rank's part. A rank that is alone pays nothing for what several do."""
    return Linear(weight, bias) if communicator.world_size == 1 else RowParallel(weight, bias, communicator)


def make_store(host: str, port: int, world_size: int, *, is_host: bool, timeout_s: float) -> Any:
    """Where ranks find each other; with port 0, the host's `store.port` says which it is."""
    timeout = timedelta(seconds=timeout_s)
    return distributed.TCPStore(host, port, world_size, is_host, timeout=timeout, wait_for_workers=False)


def join_gloo(store: Any, rank: int, world_size: int, *, host: str, timeout_s: float) -> TorchCommunicator:
    """Blocks until all ranks are there. `host` is this rank's own address; `timeout_s` limits each collective too."""
    options = distributed.ProcessGroupGloo._Options()
    options._devices = [distributed.ProcessGroupGloo.create_device(hostname=host)]
    options._timeout = timedelta(seconds=timeout_s)
    options._threads = 1
    return TorchCommunicator(distributed.ProcessGroupGloo(store, rank, world_size, options), rank, world_size)


def join_nccl(store: Any, rank: int, world_size: int, *, device: torch.device, timeout_s: float) -> TorchCommunicator:
    """Blocks until all ranks are there, each with a GPU of its own; only the end of the process ends that earlier.

    `timeout_s` limits what they say to each other before. A collective has no limit: who has lost a rank aborts it.
    """
    # Left to itself, torch ends the process when a peer is gone, before anybody could say why.
    os.environ.setdefault("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0")
    options = distributed.ProcessGroupNCCL.Options()
    options._timeout = timedelta(seconds=timeout_s)
    group = distributed.ProcessGroupNCCL(distributed.PrefixStore("nccl", store), rank, world_size, options)
    group.eager_connect_single_device(device)  # here, and not in the middle of a recording
    return TorchCommunicator(group, rank, world_size)
