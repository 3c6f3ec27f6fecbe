"""The deployment's file, read for what is simulated: what cannot run here may be asked about all the same."""

from dataclasses import replace
from pathlib import Path

from cluster.spec.checks import check_combinations
from cluster.spec.deployment import Deployment
from cluster.spec.load import parse_deployment, resolve_model_path
from cluster.spec.problem import SpecError
from cluster.spec.yaml_source import read_yaml
from deploy.text_file import read_text

_NOT_YET_SERVED = "tensor_parallel_size"


def read_deployment(file: Path) -> Deployment:
    """SpecError with all problems found. Instances may have several ranks, and the checkpoint need not be here."""
    source = read_yaml(read_text(file), str(file))
    deployment = resolve_model_path(parse_deployment(source), file.parent)
    problems = [problem for problem in check_combinations(deployment) if _NOT_YET_SERVED not in problem.path]
    if problems:
        raise SpecError(source.name, [replace(problem, line=source.lines.get(problem.path)) for problem in problems])
    return deployment
