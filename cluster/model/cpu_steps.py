"""What a CPU computes of a batch: by Numba's kernels where they help, else by torch."""

import logging
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cluster.model.attention import Attention, make_attention
from cluster.model.batch import Batch
from cluster.model.decoder import Decoder
from cluster.model.fused_forward import fused_forward
from cluster.model.kv_cache import KVCache
from cluster.model.packed_products import MANY_ROWS, OneDnnProduct, has_onednn, pack, try_kernel

LEAST_PARAMETERS = 10_000_000
"""Of a model for which it is worth a second to load the kernels: the steps of smaller ones are short without them."""

log = logging.getLogger(__name__)


class CpuSteps:
    """Torch's operations, one by one. The model's products are packed for them."""

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        self.model = model
        packs = model.dtype == torch.float32 and has_onednn()
        for linear in model.linears:
            linear.product = OneDnnProduct(linear.weight) if packs else F.linear
        self.attention: Attention = make_attention(kv_cache, model.shard)

    def compute(self, batch: Batch) -> Tensor | None:
        """fp32 logits [num_samples, vocab_size]; None where nothing is drawn, or on another rank than 0."""
        self.attention.plan(batch.spans)
        hidden = self.model.forward(batch.token_ids, batch.positions, self.attention)
        return self.model.logits_of(hidden, batch.last_rows)


class NumbaSteps:
    """In fp32. The model's products are packed for it.

    Raises what Numba does where it, its threads, or a place for what it compiles cannot be had, or where what an older
    version of this has compiled is in the way (`*.nbi` in `__pycache__`, or in NUMBA_CACHE_DIR).
    """

    def __init__(self, model: Decoder, kv_cache: KVCache) -> None:
        num_threads = torch.get_num_threads()
        from cluster.model import numba_layers
        from cluster.model.numba_attention import NumbaAttention
        from cluster.model.numba_decoder import NumbaDecoder

        numba_layers.norm(torch.ones(1, 1), torch.ones(1), 0.0)
        torch.set_num_threads(num_threads)  # Numba's threads, as they begin, set the number for both
        self.model, self.layers = model, numba_layers
        self.attention = NumbaAttention(kv_cache, model.shard)
        try_kernel()
        products = pack(linear.weight for linear in model.linears)
        for linear, product in zip(model.linears, products, strict=True):
            linear.product = product
        self._decoder = NumbaDecoder(model, kv_cache) if model.communicator.world_size == 1 else None

    def compute(self, batch: Batch) -> Tensor | None:
        """As `CpuSteps.compute`, but the next call may write over them."""
        self.attention.plan(batch.spans)
        if self._decoder is not None and len(batch.token_ids) == len(batch.spans) < MANY_ROWS:
            return self._decoder.logits(batch, self.attention.step)
        hidden = fused_forward(self.model, batch.token_ids, batch.positions, self.attention, self.layers)
        return self.model.logits_of(hidden, batch.last_rows)


def make_cpu_steps(model: Decoder, kv_cache: KVCache) -> CpuSteps | NumbaSteps:
    if model.dtype != torch.float32 or model.config.num_parameters < LEAST_PARAMETERS:
        return CpuSteps(model, kv_cache)
    try:
        return NumbaSteps(model, kv_cache)
    except Exception as error:  # whatever it is, torch can compute instead
        is_missing = isinstance(error, ModuleNotFoundError)  # nobody asked for it
        _say_without(str(error) or repr(error), logging.INFO if is_missing else logging.WARNING)
    return CpuSteps(model, kv_cache)  # here, where nothing holds what was packed already


@cache
def _say_without(reason: str, level: int) -> None:
    """Once a process."""
    log.log(level, "decoding without Numba's kernels, which would be faster: %s", reason)
