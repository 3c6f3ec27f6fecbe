"""What a GPU computes of a batch: single tokens by a recorded graph, everything else kernel by kernel."""

import torch
from torch import Tensor

from cluster.model import triton_layers
from cluster.model.batch import Batch
from cluster.model.decode_graphs import DecodeGraphs
from cluster.model.decode_inputs import DecodeInputs
from cluster.model.decoder import Decoder
from cluster.model.device import use_device
from cluster.model.fused_forward import fused_forward
from cluster.model.gpu_attention import make_gpu_attention
from cluster.model.gpu_options import GpuOptions
from cluster.model.kv_cache import KVCache
from cluster.model.layers import RMSNorm
from cluster.model.triton_attention import TritonAttention


class FusedNorm(RMSNorm):
    """In one kernel, and for each row by itself."""

    def __call__(self, hidden: Tensor) -> Tensor:
        return triton_layers.norm(hidden, self.weight, self.eps)


class GpuSteps:
    """Rows of logits follow the batch's `last_rows`. To be called in inference mode."""

    def __init__(self, model: Decoder, kv_cache: KVCache, attention: TritonAttention, options: GpuOptions) -> None:
        self.model = model
        self.attention = attention
        self.device = kv_cache.tensor.device
        model.norm = FusedNorm(model.norm.weight, model.norm.eps)
        if options.batch_invariant:
            make_invariant(model)
        else:
            attention.compile_decode()
        self._in_order = torch.arange(options.max_num_seqs)
        self.graphs = self._record(kv_cache, options) if options.graphs else None

    def compute(self, batch: Batch) -> Tensor | None:
        """fp32 logits [num_samples, vocab_size]; None where nothing is drawn, or on another rank than 0.

        They are written over by the next call.
        """
        if self.graphs is not None and self.graphs.takes(batch):
            logits = self.graphs.run(batch)
            return None if logits is None else self._select(logits, batch.last_rows)
        self.attention.plan(batch.spans)
        token_ids, positions, last_rows = (
            self._to_device(numbers) for numbers in (batch.token_ids, batch.positions, batch.last_rows)
        )
        hidden = fused_forward(self.model, token_ids, positions, self.attention, triton_layers)
        return self.model.logits_of(hidden, last_rows)

    def lay_out(self, batch: Batch) -> None:
        """A batch that is likely to be computed next."""
        if self.graphs is not None and self.graphs.takes(batch):
            self.graphs.lay_out(batch)

    def _record(self, kv_cache: KVCache, options: GpuOptions) -> DecodeGraphs:
        max_num_seqs, max_model_len = options.max_num_seqs, self.model.config.max_model_len
        max_model_len = min(options.max_model_len or max_model_len, max_model_len)
        max_blocks = min(-(-max_model_len // kv_cache.block_size), kv_cache.num_blocks)
        inputs = DecodeInputs(max_num_seqs, max_blocks, kv_cache.block_size, self.device)
        inputs.fill(NOBODY, max_num_seqs)
        return DecodeGraphs(inputs, self._decode, max_num_seqs)

    def _decode(self, inputs: DecodeInputs, size: int) -> Tensor | None:
        self.attention.plan_tensors(inputs.step(size))
        token_ids, positions = inputs.token_ids(size), inputs.positions(size)
        hidden = fused_forward(self.model, token_ids, positions, self.attention, triton_layers)
        return self.model.logits(hidden)

    def _select(self, logits: Tensor, rows: Tensor) -> Tensor:
        if torch.equal(rows, self._in_order[: len(rows)]):
            return logits[: len(rows)]
        return logits.index_select(0, self._to_device(rows))

    def _to_device(self, numbers: Tensor) -> Tensor:
        return numbers if self.device.type == "cpu" else numbers.pin_memory().to(self.device, non_blocking=True)


@torch.inference_mode()
def make_gpu_steps(model: Decoder, kv_cache: KVCache, options: GpuOptions) -> GpuSteps:
    """Takes the time of compiling kernels and recording graphs."""
    use_device(kv_cache.tensor.device)
    attention = make_gpu_attention(kv_cache, model.shard, batch_invariant=options.batch_invariant)
    return GpuSteps(model, kv_cache, attention, options)


NOBODY = Batch(
    spans=(),
    token_ids=torch.empty(0, dtype=torch.long),
    positions=torch.empty(0, dtype=torch.long),
    last_rows=torch.empty(0, dtype=torch.long),
)


def make_invariant(model: Decoder) -> None:
    """From now on a row of any of the model's products does not depend on the rows beside it."""
    for linear in model.linears:
        linear.product = triton_layers.invariant_linear
