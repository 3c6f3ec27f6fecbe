"""What a deployment says about its links."""

from dataclasses import dataclass
from typing import Literal

Transport = Literal["auto", "shm", "tcp", "nccl"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkConfig:
    """`auto` is nccl where KV is in GPUs' memory, else shm between processes of one host and tcp otherwise; the others
    insist, or fail.

    Over tcp, large transfers go over up to `max_connections` (8 at most) where a probe has found that to be faster.
    `setup_timeout_s` bounds connecting and greeting, `transfer_timeout_s` one transfer from its offer to its end.
    """

    transport: Transport = "auto"
    checksum: bool = True
    max_connections: int = 4
    setup_timeout_s: float = 5.0
    transfer_timeout_s: float = 10.0
