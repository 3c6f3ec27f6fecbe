"""Attention on a GPU by our own Triton kernels: single tokens split over their contexts, chunks by tiles.

With TRITON_INTERPRET=1, set before Triton is imported, the same kernels run on a CPU, slowly: that is how they are
tested where there is no GPU.
"""

from collections.abc import Sequence as List
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cluster.model.attention import Span
from cluster.model.config import Shard
from cluster.model.kv_cache import KVCache
from cluster.model.step_tensors import StepTensors, make_step_tensors
from cluster.model.triton_kernels import attend_chunks, attend_decode, combine_splits, store_heads

BLOCK_HEADS = 8
PROGRAMS_PER_PROCESSOR = 4
MAX_SPLITS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiles:
    """How many rows and positions a program holds, by how many warps, and how many loads ahead."""

    block_m: int
    block_n: int
    num_warps: int
    num_stages: int


DECODE_TILES = Tiles(block_m=16, block_n=64, num_warps=4, num_stages=3)
CHUNK_TILES = Tiles(block_m=128, block_n=64, num_warps=8, num_stages=3)
WIDE_TILES = Tiles(block_m=64, block_n=32, num_warps=4, num_stages=2)
EXACT_TILES = Tiles(block_m=32, block_n=16, num_warps=4, num_stages=2)
"""WIDE for heads of more than 128 dimensions, EXACT for fp32: what registers and shared memory hold."""


class TritonAttention:
    """Spans of one token must come first. `window`: a token sees so many, itself among them; None: all before it.

    With `batch_invariant`, one kernel with one shape of tiles attends for all tokens, without splits: what comes of a
    token is the same bits whether it is decoded or recomputed, however chunks are cut and whatever is beside it.
    """

    def __init__(
        self,
        kv_cache: KVCache,
        shard: Shard,
        *,
        window: int | None = None,
        batch_invariant: bool = False,
    ) -> None:
        self.kv_cache = kv_cache
        self.shard = shard
        self.num_heads, self.num_kv_heads = shard.num_heads, shard.num_kv_heads
        self.head_dim = kv_cache.tensor.shape[-1]
        self.window = window or 0
        self.batch_invariant = batch_invariant
        self._layers = kv_cache.tensor[:1].unbind(2)  # where each layer begins, for its pointer
        self._block_stride, self._value_offset = kv_cache.tensor.stride(0), kv_cache.tensor.stride(1)
        self._chunk_tiles = _chunk_tiles(kv_cache.tensor.dtype, self.head_dim)
        self._operand = operand_type(kv_cache.tensor)
        self._precision = "ieee" if kv_cache.tensor.dtype == torch.float32 else "tf32"  # of fp32 products alone
        self._num_processors = _num_processors(kv_cache.tensor.device)

    def plan(self, spans: List[Span]) -> None:
        self.plan_tensors(make_step_tensors(spans, self.kv_cache.block_size, self.kv_cache.tensor.device))

    def plan_tensors(self, step: StepTensors) -> None:
        """For a step whose tensors are on the device already; they are read when it runs, not now."""
        self.step = step
        self.num_splits = self.splits_for(step.num_decodes, step.max_context)

    def splits_for(self, num_sequences: int, max_context: int) -> int:
        """Enough to give every processor of the device some programs; no more than the longest context has tiles.

        A power of two: each number is a kernel of its own.
        """
        if not num_sequences or self.batch_invariant:
            return 1
        wanted = -(-PROGRAMS_PER_PROCESSOR * self._num_processors // (num_sequences * self.num_kv_heads))
        most = max(1, min(wanted, MAX_SPLITS, -(-max_context // DECODE_TILES.block_n)))
        return 1 << (most.bit_length() - 1)

    def compile_decode(self) -> None:
        """For every number of splits, so that none is compiled while requests wait; an empty context is attended to."""
        nobody = torch.zeros(1, dtype=torch.int32, device=self.kv_cache.tensor.device)
        self.step = StepTensors(
            tables=nobody[None],
            contexts=nobody,
            chunk_starts=nobody,
            slots=nobody,
            num_decodes=1,
            max_chunk=1,
            max_context=0,
        )
        queries = self.kv_cache.tensor.new_zeros(1, self.num_heads * self.head_dim)
        for power in range(MAX_SPLITS.bit_length()):
            self.num_splits = 1 << power
            self._decode(0, queries, queries.shape[1], torch.empty_like(queries), 1)

    def attend(self, layer: int, heads: Tensor) -> Tensor:
        self._store(layer, heads)
        return self._attend(layer, heads, heads.shape[1] * self.head_dim)

    def turn_and_attend(
        self, layer: int, heads: Tensor, rotations: Tensor, norms: Tensor | None = None, eps: float = 0.0
    ) -> Tensor:
        """`attend` for heads that are neither rotated nor, where `norms` [heads, head_dim] is given, normalised yet.

        `rotations`: [num_tokens, head_dim / 2, 2] of fp32, cosine and sine.
        """
        queries = heads.new_empty(heads.shape[0], self.num_heads, self.head_dim)
        self._store(layer, heads, queries, rotations, norms, eps)
        return self._attend(layer, queries, self.num_heads * self.head_dim)

    def _store(
        self,
        layer: int,
        heads: Tensor,
        queries: Tensor | None = None,
        rotations: Tensor | None = None,
        norms: Tensor | None = None,
        eps: float = 0.0,
    ) -> None:
        num_stored = (0 if queries is None else self.num_heads) + 2 * self.num_kv_heads
        store_heads[(heads.shape[0], triton.cdiv(num_stored, BLOCK_HEADS))](
            heads,
            heads if queries is None else queries,
            self._layers[layer],
            self.step.slots,
            self.step.slots if rotations is None else rotations,
            heads if norms is None else norms,
            eps,
            self._block_stride,
            self._value_offset,
            NUM_HEADS=self.num_heads,
            NUM_KV_HEADS=self.num_kv_heads,
            HEAD_DIM=self.head_dim,
            PADDED_DIM=triton.next_power_of_2(self.head_dim),
            BLOCK_SIZE=self.kv_cache.block_size,
            BLOCK_HEADS=BLOCK_HEADS,
            TURNS=queries is not None,
            NORMS=norms is not None,
            num_warps=4,
        )

    def _attend(self, layer: int, queries: Tensor, query_stride: int) -> Tensor:
        outputs = queries.new_empty(queries.shape[0], self.num_heads * self.head_dim)
        num_decodes = 0 if self.batch_invariant else self.step.num_decodes
        if num_decodes:
            self._decode(layer, queries, query_stride, outputs, num_decodes)
        if self.step.num_sequences > num_decodes:
            self._chunks(layer, queries, query_stride, outputs, num_decodes)
        return outputs

    def _decode(self, layer: int, queries: Tensor, query_stride: int, outputs: Tensor, num_decodes: int) -> None:
        step, splits = self.step, self.num_splits
        partial_outputs, partial_logs = outputs, outputs
        if splits > 1:
            shape = (num_decodes, self.num_heads, splits)
            partial_outputs = torch.empty(*shape, self.head_dim, dtype=torch.float32, device=outputs.device)
            partial_logs = torch.empty(shape, dtype=torch.float32, device=outputs.device)
        tiles = DECODE_TILES
        attend_decode[(num_decodes, self.num_kv_heads, splits)](
            queries,
            self._layers[layer],
            step.tables,
            step.contexts,
            outputs,
            partial_outputs,
            partial_logs,
            self.head_dim**-0.5,
            query_stride,
            step.tables.stride(0),
            self._block_stride,
            self._value_offset,
            **self._shape,
            BLOCK_M=max(tiles.block_m, triton.next_power_of_2(self.num_heads // self.num_kv_heads)),
            BLOCK_N=tiles.block_n,
            NUM_SPLITS=splits,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )
        if splits > 1:
            combine_splits[(num_decodes, self.num_heads)](
                partial_outputs,
                partial_logs,
                step.contexts,
                outputs,
                NUM_HEADS=self.num_heads,
                HEAD_DIM=self.head_dim,
                PADDED_DIM=max(16, triton.next_power_of_2(self.head_dim)),
                BLOCK_N=tiles.block_n,
                NUM_SPLITS=splits,
                PADDED_SPLITS=triton.next_power_of_2(splits),
                WINDOW=self.window,
                num_warps=4,
            )

    def _chunks(self, layer: int, queries: Tensor, query_stride: int, outputs: Tensor, first: int) -> None:
        """From the sequence `first` on."""
        step, tiles = self.step, self._chunk_tiles
        num_tiles = triton.cdiv(step.max_chunk * (self.num_heads // self.num_kv_heads), tiles.block_m)
        attend_chunks[(num_tiles, self.num_kv_heads, step.num_sequences - first)](
            queries,
            self._layers[layer],
            step.tables[first:],
            step.contexts[first:],
            step.chunk_starts[first:],
            outputs,
            self.head_dim**-0.5,
            query_stride,
            step.tables.stride(0),
            self._block_stride,
            self._value_offset,
            **self._shape,
            BLOCK_M=tiles.block_m,
            BLOCK_N=tiles.block_n,
            num_warps=tiles.num_warps,
            num_stages=tiles.num_stages,
        )

    @property
    def _shape(self) -> dict[str, Any]:
        """What the compiler knows of the model, in both kernels. Its products take 16 dimensions or more."""
        return {
            "NUM_HEADS": self.num_heads,
            "NUM_KV_HEADS": self.num_kv_heads,
            "HEAD_DIM": self.head_dim,
            "PADDED_DIM": max(16, triton.next_power_of_2(self.head_dim)),
            "BLOCK_SIZE": self.kv_cache.block_size,
            "WINDOW": self.window,
            "PRECISION": self._precision,
            "OPERAND": self._operand,
        }


def _chunk_tiles(dtype: torch.dtype, head_dim: int) -> Tiles:
    if dtype == torch.float32:
        return EXACT_TILES
    return WIDE_TILES if head_dim > 128 else CHUNK_TILES


def operand_type(tensor: Tensor) -> Any:
    """What products of this tensor's values are computed in."""
    is_bf16 = tensor.dtype == torch.bfloat16 and tensor.device.type == "cuda"
    return tl.bfloat16 if is_bf16 else tl.float32


def _num_processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 8  # in the interpreter: as many as it takes to split
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
