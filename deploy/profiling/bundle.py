"""Makes the figures in cluster/latency/data from published tables: `python -m deploy.profiling.bundle SOURCES`.

SOURCES holds, gzipped where the name says so:
    aic_vllm0.14_{gemm,context_attention,generation_attention,custom_allreduce}_perf.csv.gz
        github.com/ai-dynamo/aiconfigurator, Apache-2.0: kernels of vLLM 0.14, timed on A100, H100 and H200
    distserve_fit_a100-80g.distserve.json, distserve_max_num_tokens.csv
        github.com/LLMServe/DistServe, Apache-2.0: fitted coefficients and KV capacities

Kernel tables are thinned to 16 bits, to what dense models need, and to what can be true (`lawful`): some of what was
timed was disturbed.
"""

import csv
import gzip
import json
import sys
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

Table = NDArray[np.float64]
Row = dict[str, str]

DATA = Path(__file__).parents[2] / "cluster/latency/data"
GPUS = {"a100": "a100_sxm", "h100": "h100_sxm", "h200": "h200_sxm"}
AIC = "aic_vllm0.14_"
TOKENS = (1, 2, 4, 8, 16, 32, 48, 64, 80, 96, 128, 160, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
LEAST_WIDTH = 128
HEADS = (1, 2, 4, 8, 12, 16, 24, 32, 40, 48, 64)
# Decoding heads that read the same KV hardly cost more than one: so tables are by KV heads, at common group sizes.
GROUPS = (4, 8)
OPT = {"opt-13b": (40, 5120), "opt-66b": (64, 9216)}


def main(sources: Path) -> None:
    for name, text in bundle(sources).items():
        (DATA / name).write_text(text)


def bundle(sources: Path) -> dict[str, str]:
    """By name of the file."""
    kernels = {name: _rows(sources / f"{AIC}{name}_perf.csv.gz") for name in _TABLES}
    files = {"distserve_a100-80g.json": _text(_distserve(sources), 2) + "\n"}
    for gpu, name in GPUS.items():
        tables = {table: _TABLES[table]([row for row in rows if row["gpu"] == name]) for table, rows in kernels.items()}
        about = {
            "source": "github.com/ai-dynamo/aiconfigurator: vLLM 0.14, thinned by deploy/profiling/bundle.py",
            "licence": "Apache-2.0",
            "units": "microseconds",
        }
        files[f"kernels_{gpu}.json"] = _text(about | tables, 2) + "\n"
    return files


def lawful(times: Table, axes: tuple[int, ...]) -> Table:
    """What is smaller takes no longer: it could be padded. So along each of `axes`."""
    for axis in axes:
        times = np.flip(np.minimum.accumulate(np.flip(times, axis), axis), axis)
    return times


def halved(times: Table, sizes: tuple[int, ...]) -> Table:
    """What has twice the size takes no longer than twice: it could be cut in two. `sizes`: of the last axis."""
    times = times.copy()
    for at, size in enumerate(sizes):
        if size % 2 == 0 and size // 2 in sizes:
            times[..., at] = np.minimum(times[..., at], 2 * times[..., sizes.index(size // 2)])
    return times


def _gemm(rows: list[Row]) -> dict[str, Any]:
    """[outputs, inputs, tokens] of a linear layer."""
    found = {
        (int(row["n"]), int(row["k"]), int(row["m"])): 1e3 * float(row["latency_ms"])
        for row in rows
        if row["gemm_dtype"] == "bfloat16"
    }
    outputs = sorted({n for n, _, _ in found if n >= LEAST_WIDTH})
    inputs = [k for k in outputs if (outputs[-1], k, 1) in found]
    timed = sorted({m for _, _, m in found})
    curves = [[[found[n, k, m] for m in timed] for k in inputs] for n in outputs]
    times = np.array([[np.interp(TOKENS, timed, curve) for curve in of_output] for of_output in curves])
    lawful_times = lawful(halved(times, TOKENS), (2, 1, 0))
    return {"tokens": TOKENS, "outputs": outputs, "inputs": inputs, "us": _rounded(lawful_times)}


def _context_attention(rows: list[Row]) -> dict[str, Any]:
    """[heads, length] of one prompt: the median over numbers of KV heads, and of as many heads in several prompts."""
    found = defaultdict(list)
    for row in rows:
        heads, batch = int(row["num_heads"]), int(row["batch_size"])
        if int(row["num_key_value_heads"]) <= 8 and (batch == 1 or heads >= 8):
            found[heads * batch, int(row["isl"])].append(1e3 * float(row["latency_ms"]))
    lengths = sorted({length for _, length in found})
    times = np.array([[median(found[heads, length]) for length in lengths] for heads in HEADS])
    return {"heads": HEADS, "lengths": lengths, "us": _rounded(lawful(times, (1, 0)))}


def _generation_attention(rows: list[Row]) -> dict[str, Any]:
    """[KV heads times sequences, context of each]; where nothing was timed, as the last two points before it go on."""
    found = defaultdict(list)
    for row in rows:
        heads, kv_heads = int(row["num_heads"]), int(row["num_key_value_heads"])
        if heads / kv_heads in GROUPS:
            found[kv_heads * int(row["batch_size"]), int(row["step"]) + 1].append(1e3 * float(row["latency_ms"]))
    sequences = sorted({many for many, _ in found if many <= 2048})
    contexts = sorted({context for _, context in found})
    times = np.empty((len(sequences), len(contexts)))
    for at, many in enumerate(sequences):
        known = [context for context in contexts if (many, context) in found]
        values = [median(found[many, context]) for context in known]
        slope = (values[-1] - values[-2]) / (known[-1] - known[-2])
        beyond = values[-1] + slope * (np.array(contexts) - known[-1])
        times[at] = np.where(np.array(contexts) <= known[-1], np.interp(contexts, known, values), beyond)
    return {"sequences": sequences, "contexts": contexts, "us": _rounded(lawful(times, (1, 0)))}


def _custom_allreduce(rows: list[Row]) -> dict[str, Any]:
    """[ranks, bytes], in a CUDA graph."""
    found = {
        (int(row["num_gpus"]), int(row["message_size"])): 1e3 * float(row["latency_ms"])
        for row in rows
        if row["backend"] == "vllm_graph"
    }
    ranks, sizes = sorted({each for each, _ in found}), sorted({size for _, size in found})
    times = np.array([[found[each, size] for size in sizes] for each in ranks])
    return {"ranks": ranks, "bytes": sizes, "us": _rounded(lawful(times, (1, 0)))}


_TABLES = {
    "gemm": _gemm,
    "context_attention": _context_attention,
    "generation_attention": _generation_attention,
    "custom_allreduce": _custom_allreduce,
}


def _distserve(sources: Path) -> dict[str, Any]:
    fits = json.loads((sources / "distserve_fit_a100-80g.distserve.json").read_text())
    with (sources / "distserve_max_num_tokens.csv").open() as file:
        capacities = list(csv.DictReader(file))
    models: dict[str, Any] = {}
    for name, (num_layers, hidden) in OPT.items():
        num_kv_tokens: dict[str, dict[str, int]] = defaultdict(dict)
        for row in capacities:
            if row["model"] == f"facebook/{name}":
                num_kv_tokens[row["tp"]][row["pp"]] = int(row["max_num_tokens"])
        models[name] = {
            "num_parameters": (50272 + 2050) * hidden + num_layers * (12 * hidden**2 + 13 * hidden) + 2 * hidden,
            "kv_bytes_per_token": 2 * num_layers * hidden * 2,
            "coefficients_ms": {
                tp: {
                    "prefill": fit["prefill"],
                    "decode_small": fit["decoding_smallbs"],
                    "large_from_batch": fit["decoding_large_small_bs_threshold"],
                    "decode_large": fit["decoding_largebs"],
                }
                for tp, fit in fits[f"facebook/{name}"].items()
            },
            "num_kv_tokens": num_kv_tokens,
        }
    return {
        "source": "github.com/LLMServe/DistServe, simdistserve: its engine on A100-80GB, KV capacities of its search",
        "licence": "Apache-2.0",
        "units": "prefill: ms, per token, per token squared; decode: ms, per token of context, per sequence",
        "gpu_memory_bytes": 80 << 30,
        "models": models,
    }


def _rows(file: Path) -> list[Row]:
    with gzip.open(file, "rt") as lines:
        return list(csv.DictReader(lines))


def _rounded(times: Table) -> list[Any]:
    """To four digits, far below what the kernels differ from run to run."""
    rounded: list[Any] = np.vectorize(lambda time: float(f"{time:.4g}"))(times).tolist()
    return rounded


def _text(value: Any, depth: int) -> str:
    """A line for each key of the first `depth` levels, so that a change of one table is a change of its lines."""
    if depth and isinstance(value, dict):
        lines = (f"{json.dumps(key)}: {_text(each, depth - 1)}" for key, each in value.items())
        return "{\n" + ",\n".join(lines) + "\n}"
    if isinstance(value, list) and value and isinstance(value[0], list):
        return "[\n" + ",\n".join(_text(each, 0) for each in value) + "]"
    return json.dumps(value, separators=(",", ":")).replace(".0,", ",").replace(".0]", "]")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
