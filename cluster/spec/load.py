"""From a file to a deployment that can work, or to everything that is wrong with it."""

from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from cluster.spec.checkpoint import CheckpointError, CheckpointFacts
from cluster.spec.checks import check_checkpoint, check_combinations
from cluster.spec.deployment import Deployment
from cluster.spec.explain import explain
from cluster.spec.gpu_checks import FindGpus, check_gpus
from cluster.spec.problem import Problem, SpecError
from cluster.spec.yaml_source import YamlSource, read_yaml


def load_deployment(
    file: Path, *, machine_memory_bytes: int | None = None, find_gpus: FindGpus | None = None
) -> Deployment:
    """The deployment in `file`, its model path made absolute; SpecError with all problems found.

    `machine_memory_bytes` and `find_gpus`: of the machine that will run all instances, when that is known.
    """
    try:
        text = file.read_bytes().decode()
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
        raise SpecError(str(file), [Problem(path=(), message=message)]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(file), [Problem(path=(), message=f"is not UTF-8: {error.reason}")]) from error
    source = read_yaml(text, str(file))
    deployment = resolve_model_path(parse_deployment(source), file.parent)
    problems = [*check_combinations(deployment), *_check_model(deployment, machine_memory_bytes, find_gpus)]
    if problems:
        raise SpecError(source.name, [replace(problem, line=source.lines.get(problem.path)) for problem in problems])
    return deployment


def parse_deployment(source: YamlSource) -> Deployment:
    """What the schema alone can tell; SpecError."""
    try:
        return Deployment.model_validate(source.data)
    except ValidationError as error:
        raise SpecError(source.name, explain(error, Deployment, source)) from None


def resolve_model_path(deployment: Deployment, base: Path) -> Deployment:
    model = deployment.spec.model
    path = (base / Path(model.path).expanduser()).resolve()
    model = model.model_copy(update={"path": str(path), "served_model_name": model.served_model_name or path.name})
    return deployment.model_copy(update={"spec": deployment.spec.model_copy(update={"model": model})})


def _check_model(deployment: Deployment, machine_memory_bytes: int | None, find_gpus: FindGpus | None) -> list[Problem]:
    try:
        facts = CheckpointFacts.read(Path(deployment.spec.model.path))
    except CheckpointError as error:
        return [Problem(path=("spec", "model", "path"), message=str(error))]
    problems = list(check_checkpoint(deployment, facts, machine_memory_bytes))
    return problems + (list(check_gpus(deployment, facts, find_gpus)) if find_gpus else [])
