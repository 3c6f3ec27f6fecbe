"""The reference runs of DistServe's own simulator, and our cluster under the same assumptions.

`NAME.json` holds a workload, `NAME__MODEL_pTPxPP_dTPxPP.csv.gz` what became of it on one prefill and one decode
instance. KV takes no time from one to the other and always finds room; a prefill batch is everything that waits, up to
the KV capacity in tokens, a decode step what can be read in 50,000 tokens; nothing else takes time.
"""

import csv
import gzip
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cluster.latency.distserve import DistServeHardware
from cluster.latency.hardware import Parallelism
from cluster.role import InstanceRole
from cluster.topology.topology import Node, Topology
from deploy.errors import InputError
from deploy.simulator import Columns, SimCluster, SimInstance
from deploy.workload.request import WorkloadRequest
from router.policies import ReschedulingConfig

SLOS_MS = {"opt-13b": {"ttft": 200.0, "tpot": 100.0}, "opt-66b": {"ttft": 400.0, "tpot": 100.0}}

_NAME = re.compile(
    r"(?P<workload>.+)__opt_(?P<size>\d+b)_p(?P<ptp>\d+)x(?P<ppp>\d+)_d(?P<dtp>\d+)x(?P<dpp>\d+)\.csv\.gz"
)
_MAX_DECODE_CONTEXT = 50_000
_NUM_TOKENS = 1 << 24  # of memory, where there is always room
_UNLIMITED = 1 << 40

Column = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """`ttft_ms`, `tpot_ms`: in the order of the workload."""

    name: str
    model: str
    prefill: Parallelism
    decode: Parallelism
    requests: tuple[WorkloadRequest, ...]
    ttft_ms: Column
    tpot_ms: Column

    @property
    def slos_ms(self) -> dict[str, float]:
        return SLOS_MS[self.model]

    def cluster(self, block_size: int = 512) -> SimCluster:
        """Blocks bound nothing, so that any size will do."""
        hardware = DistServeHardware(self.model, with_call_overhead=True)

        def instance(role: InstanceRole, parallelism: Parallelism, max_context_tokens: int) -> SimInstance:
            return SimInstance(
                name=role.value,
                role=role,
                node="node",
                latency=hardware.model(parallelism),
                num_blocks=_NUM_TOKENS // block_size,
                block_size=block_size,
                block_bytes=1,
                max_model_len=_NUM_TOKENS,
                max_num_seqs=_UNLIMITED,
                token_budget=_UNLIMITED,
                saturation_tokens=_UNLIMITED,
                enable_prefix_caching=False,
                max_context_tokens=max_context_tokens,
            )

        return SimCluster(
            instances=(
                instance(InstanceRole.PREFILL, self.prefill, hardware.num_kv_tokens(self.prefill)),
                instance(InstanceRole.DECODE, self.decode, _MAX_DECODE_CONTEXT),
            ),
            topology=Topology([Node(name="node")], np.full((1, 1), np.nan), np.full((1, 1), np.nan)),
            policy="least_loaded",
            rescheduling=ReschedulingConfig(policy="none"),
            snapshot_interval_s=5.0,  # there is nothing to choose by them
        )

    def attainment(self, ttft_ms: Column, tpot_ms: Column) -> float:
        """From 0 to 1."""
        return float(np.mean((ttft_ms <= self.slos_ms["ttft"]) & (tpot_ms <= self.slos_ms["tpot"])))


def references(folder: Path) -> list[Path]:
    return sorted(folder.glob("*__opt_*.csv.gz"))


def read_reference(file: Path) -> Reference:
    """Raises InputError for a name that says nothing of the cluster."""
    found = _NAME.fullmatch(file.name)
    if found is None:
        raise InputError(f"{file}: the name is not NAME__opt_SIZE_pTPxPP_dTPxPP.csv.gz")
    rows = json.loads((file.parent / f"{found['workload']}.json").read_text())
    with gzip.open(file, "rt") as lines:
        results = list(csv.DictReader(lines))
    return Reference(
        name=file.name.removesuffix(".csv.gz"),
        model=f"opt-{found['size']}",
        prefill=Parallelism(int(found["ptp"]), int(found["ppp"])),
        decode=Parallelism(int(found["dtp"]), int(found["dpp"])),
        requests=tuple(_requests(rows)),
        ttft_ms=np.array([float(row["first_token_latency"]) for row in results]),
        tpot_ms=np.array([float(row["tpot"]) for row in results]),
    )


def _requests(rows: list[dict[str, float]]) -> Iterator[WorkloadRequest]:
    """There, a request runs as many decode steps as it has output; here, its first token comes before all of them."""
    for row in rows:
        yield WorkloadRequest(
            arrival_s=float(row["start_time"]),
            num_prompt_tokens=int(row["prompt_len"]),
            num_output_tokens=int(row["output_len"]) + 1,
        )


def in_order(columns: Columns) -> tuple[Column, Column]:
    """TTFT and TPOT in ms, in the order of the workload."""
    order = np.argsort(columns.good_numbers)
    return 1e3 * columns.ttft_s()[order], 1e3 * columns.tpot_s()[order]
