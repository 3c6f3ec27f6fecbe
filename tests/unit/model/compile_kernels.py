"""Compiles the Triton kernels for GPUs that need not be here: `python -m tests.unit.model.compile_kernels`.

Llama-3-8B's shape. Prints registers, stack, shared memory and matrix instructions; ends with an error if a bf16 kernel
spills on Hopper.
"""

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import triton
import triton.backends.nvidia
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from cluster.model import triton_attention, triton_kernels, triton_layer_kernels, triton_layers

CAPABILITIES = (80, 90)
MODEL = {"NUM_HEADS": 32, "NUM_KV_HEADS": 8, "HEAD_DIM": 128, "PADDED_DIM": 128, "BLOCK_SIZE": 16}
NUMBERS = {"*i32": ("slots", "tables", "contexts", "chunk_starts"), "*fp32": ("rotations", "partial_outputs")}
NUMBERS |= {"fp32": ("eps", "scale"), "i32": ("num_rows", "size")}


def kinds(kernel: Any, constants: dict[str, Any], element: str) -> dict[str, str]:
    """Of each argument, by its name."""
    found = {}
    for name in kernel.arg_names:
        known = next((kind for kind, names in NUMBERS.items() if name in names), None)
        if name in constants:
            found[name] = "constexpr"
        elif name == "partial_logs":
            found[name] = "*fp32"
        else:
            found[name] = known or ("i32" if name.endswith(("stride", "offset")) else f"*{element}")
    return found


def build(label: str, capability: int, kernel: Any, constants: dict[str, Any], element: str) -> int:
    """Bytes of stack that a thread of it uses."""
    options = {name: constants.pop(name) for name in ("num_warps", "num_stages") if name in constants}
    arguments = kinds(kernel, constants, element)
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(kernel.arg_names)
        if arguments[name] == f"*{element}" or name.endswith(("block_stride", "value_offset", "query_stride", "size"))
    }
    source = ASTSource(
        fn=kernel,
        signature=arguments,
        constexprs={(kernel.arg_names.index(name),): value for name, value in constants.items()},
        attrs=aligned,
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    usage = resources(compiled.asm["cubin"])
    matrix = [word for word in ("wgmma.mma_async", "mma.sync") if word in compiled.asm["ptx"]]
    line = f"sm_{capability} {element} {label:24} registers {usage['REG']:3}, stack {usage['STACK']:4}, "
    print(f"{line}shared {compiled.metadata.shared:6} {' '.join(matrix)}", flush=True)
    return usage["STACK"]


def resources(cubin: bytes) -> dict[str, int]:
    tool = Path(triton.backends.nvidia.__file__).parent / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        said = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    pairs = (word.split(":") for word in said.split() if word.count(":") == 1 and word.split(":")[1].isdigit())
    return {name: int(number) for name, number in pairs}


def builds(element: str) -> list[tuple[str, Any, dict[str, Any]]]:
    exact = element == "fp32"
    operand = {"OPERAND": tl.float32 if exact else tl.bfloat16, "PRECISION": "ieee" if exact else "tf32"}
    decode = triton_attention.DECODE_TILES
    chunks = triton_attention.EXACT_TILES if exact else triton_attention.CHUNK_TILES
    splits = {"HEAD_DIM": 128, "PADDED_DIM": 128, "BLOCK_N": decode.block_n, "NUM_SPLITS": 8, "PADDED_SPLITS": 8}
    store = {**MODEL, "BLOCK_HEADS": triton_attention.BLOCK_HEADS, "num_warps": 4}
    linear = triton_layers._exact_tiles() if exact else triton_layers._bf16_tiles()
    shape = {"IN_FEATURES": 4096, "OUT_FEATURES": 14336, "HAS_BIAS": False, "OPERAND": operand["OPERAND"]}
    row = {"SIZE": 4096, "PADDED": 4096, "ADDS": True, "num_warps": 8}
    kernels, layers = triton_kernels, triton_layer_kernels
    return [
        ("store", kernels.store_heads, {**store, "TURNS": False, "NORMS": False}),
        ("norm, turn, store", kernels.store_heads, {**store, "TURNS": True, "NORMS": True}),
        ("decode", kernels.attend_decode, {**MODEL, **operand, "WINDOW": 0, "NUM_SPLITS": 8, **tiles(decode)}),
        ("combine", kernels.combine_splits, {"NUM_HEADS": 32, **splits, "WINDOW": 0, "num_warps": 4}),
        ("chunks", kernels.attend_chunks, {**MODEL, **operand, "WINDOW": 0, **tiles(chunks)}),
        ("add, norm", layers.add_norm_rows, row),
        ("silu, multiply", layers.multiply_gates, {"BLOCK": 1024, "num_warps": 4}),
        ("invariant product", layers.multiply_tiles, {**shape, **linear}),
    ]


def tiles(chosen: triton_attention.Tiles) -> dict[str, int]:
    return {
        "BLOCK_M": chosen.block_m,
        "BLOCK_N": chosen.block_n,
        "num_warps": chosen.num_warps,
        "num_stages": chosen.num_stages,
    }


def main() -> int:
    spills = 0
    for capability in CAPABILITIES:
        for element in ("bf16", "fp32"):
            used = [
                build(label, capability, kernel, constants, element) for label, kernel, constants in builds(element)
            ]
            spills += sum(used) if (capability, element) == (90, "bf16") else 0
    return 1 if spills else 0


if __name__ == "__main__":
    sys.exit(main())
