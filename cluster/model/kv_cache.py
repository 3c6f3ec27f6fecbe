"""The paged KV cache of one rank: a block is one contiguous record, so that moving it is one copy."""

from math import prod
from mmap import mmap

import torch
from torch import Tensor


class KVCache:
    """`tensor` is [num_blocks, 2 (k, v), num_layers, block_size, num_kv_heads, head_dim], over `buffer` if given.

    Otherwise it is on `device`; None: the CPU.

    Masked slots are read and multiplied by zero, and zero times NaN is NaN: `clear` a block before it is begun.
    """

    def __init__(
        self,
        num_blocks: int,
        num_layers: int,
        block_size: int,
        num_kv_heads: int,
        head_dim: int,
        dtype: torch.dtype,
        buffer: memoryview | mmap | None = None,
        device: torch.device | None = None,
    ) -> None:
        self.num_blocks = num_blocks
        self.num_layers = num_layers
        self.block_size = block_size
        self.num_tokens = num_blocks * block_size
        self.record_bytes = self.record_bytes_for(num_layers, block_size, num_kv_heads, head_dim, dtype)
        shape = (num_blocks, 2, num_layers, block_size, num_kv_heads, head_dim)
        if buffer is None:
            self.tensor = torch.zeros(shape, dtype=dtype, device=device)
        else:
            if len(buffer) < num_blocks * self.record_bytes:
                raise ValueError(f"{num_blocks} blocks need {num_blocks * self.record_bytes} bytes, not {len(buffer)}")
            self.tensor = torch.frombuffer(buffer, dtype=dtype, count=prod(shape)).view(shape)
        token_rows = self.tensor.view(-1, num_kv_heads * head_dim)
        block_rows = self.tensor.view(-1, block_size * num_kv_heads * head_dim)
        # Layer by layer a view that starts at that layer's first row: the same index then serves every layer.
        self.token_rows: list[Tensor] = [token_rows[layer * block_size :] for layer in range(num_layers)]
        self.block_rows: list[Tensor] = [block_rows[layer:] for layer in range(num_layers)]

    @staticmethod
    def record_bytes_for(num_layers: int, block_size: int, num_kv_heads: int, head_dim: int, dtype: torch.dtype) -> int:
        """Bytes of one block on one rank."""
        return 2 * num_layers * block_size * num_kv_heads * head_dim * dtype.itemsize

    def token_row_index(self, block_ids: Tensor, slots: Tensor) -> Tensor:
        """Rows of `token_rows[layer]` for K and V of tokens, [num_tokens, 2]."""
        first = block_ids * (2 * self.num_layers * self.block_size) + slots
        return torch.stack((first, first + self.num_layers * self.block_size), dim=1)

    def block_row_index(self, block_ids: Tensor) -> Tensor:
        """Rows of `block_rows[layer]` of all blocks, K before V: [2 * number of block ids]."""
        first = block_ids.flatten() * (2 * self.num_layers)
        return torch.cat((first, first + self.num_layers))

    def clear(self, block_id: int) -> None:
        """Before a block is begun: slots not written yet are read too, masked, and must not hold another's NaN."""
        self.tensor[block_id].zero_()
