"""The house of DESIGN.md, section 2, enforced: who may import whom, what the brain may not touch, what is generated."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).parents[2]
FLOORS = {
    "cluster": set(),
    "prefill_workers": {"cluster"},
    "decode_workers": {"cluster"},
    "router": {"cluster"},
    "deploy": {"cluster", "prefill_workers", "decode_workers", "router"},
}
BRAIN = (
    "cluster/engine",
    "cluster/handover/protocol",
    "cluster/latency",
    "cluster/links/probe/plan.py",
    "cluster/messages.py",
    "cluster/snapshot.py",
    "cluster/topology",
    "deploy/planner",
    "router/ledger",
    "router/links/forecast.py",
    "router/links/probe_plan.py",
    "router/links/transfer_log.py",
    "router/policies",
)
BODY_MODULES = {
    "torch",
    "ray",
    "grpc",
    "asyncio",
    "time",
    "random",
    "logging",
    "threading",
    "socket",
    "secrets",
    "uuid",
}
# Candidate scoring; all pairs of nodes.
NUMPY_ALLOWED = ("router/policies", "router/links", "cluster/latency", "cluster/topology", "deploy/planner")


def modules() -> list[Path]:
    return sorted(file for package in FLOORS for file in (ROOT / package).rglob("*.py"))


def brain() -> list[Path]:
    return [file for file in modules() if str(file.relative_to(ROOT)).startswith(BRAIN)]


@cache
def imports(file: Path) -> tuple[str, ...]:
    """All modules a file imports, wherever in it, by their full names."""
    return tuple(_iter_imports(file))


def _iter_imports(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}, line {node.lineno}: imports here are absolute"
            yield str(node.module)


@cache
def project_module(name: str) -> Path | None:
    path = ROOT / name.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def reachable(start: Path) -> set[str]:
    """Every module that importing a file imports, our own followed; packages' __init__ files included."""
    seen: set[Path] = set()
    found: set[str] = set()
    waiting = [start]
    while waiting:
        file = waiting.pop()
        if file not in seen:
            seen.add(file)
            names = set(imports(file))
            found |= names
            for name in names:
                parts = name.split(".")
                parents = [project_module(".".join(parts[: end + 1])) for end in range(len(parts))]
                waiting += [parent for parent in parents if parent]
    return found


def relative(files: list[Path]) -> list[str]:
    return [str(file.relative_to(ROOT)) for file in files]


@pytest.mark.parametrize("path", relative(modules()))
def test_a_module_imports_only_from_its_floor_and_below(path):
    package = path.split("/")[0]
    upstairs = {
        name for name in imports(ROOT / path) if name.split(".")[0] in FLOORS.keys() - FLOORS[package] - {package}
    }
    assert not upstairs, f"{path} may import {FLOORS[package] or 'no other package'}"


def test_there_is_a_brain():
    assert len(brain()) >= 8


@pytest.mark.parametrize("path", relative(brain()))
def test_the_brain_reaches_no_body(path):
    forbidden = BODY_MODULES if path.startswith(NUMPY_ALLOWED) else BODY_MODULES | {"numpy"}
    assert not {name.split(".")[0] for name in reachable(ROOT / path)} & forbidden


def test_the_router_never_reaches_torch():
    for file in modules():
        if file.is_relative_to(ROOT / "router"):
            found = {name.split(".")[0] for name in reachable(file)} | set(reachable(file))
            assert not found & {"torch", "cluster.model"}, file


def test_generated_code_is_what_the_proto_files_generate(tmp_path):
    protoc = pytest.importorskip("grpc_tools.protoc")
    import grpc_tools

    well_known = Path(grpc_tools.__file__).parent / "_proto"
    protos = [f"cluster/pb/{file.name}" for file in sorted((ROOT / "proto").glob("*.proto"))]
    options = [f"-Icluster/pb={ROOT / 'proto'}", f"-I{well_known}"]
    outputs = [f"--{kind}={tmp_path}" for kind in ("python_out", "pyi_out", "grpc_python_out")]
    assert protoc.main(["protoc", *options, *outputs, *protos]) == 0
    for generated in sorted(tmp_path.rglob("*.py*")):
        committed = ROOT / generated.relative_to(tmp_path)
        assert committed.read_text() == generated.read_text(), f"{committed.name} is stale: run `make proto`"


def test_the_import_name_proto_is_left_to_its_owner():
    assert not list((ROOT / "proto").glob("*.py"))
    assert "proto" not in sys.modules or "site-packages" in str(sys.modules["proto"].__file__)


def test_only_files_named_after_ray_call_it():
    callers = {str(file.relative_to(ROOT)) for file in modules() if "ray" in {n.split(".")[0] for n in imports(file)}}
    assert callers == {f"deploy/ray_{name}.py" for name in ("errors", "groups", "handle", "nodes", "probe", "session")}
