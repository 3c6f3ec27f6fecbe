"""The deployment's file, read for what is simulated."""

from dataclasses import replace
from pathlib import Path

from cluster.spec.checks import check_combinations
from cluster.spec.deployment import Deployment
from cluster.spec.load import parse_deployment, resolve_model_path
from cluster.spec.problem import SpecError
from cluster.spec.yaml_source import read_yaml
from deploy.text_file import read_text


def read_deployment(file: Path) -> Deployment:
    """SpecError with all problems found. The checkpoint need not be here."""
    source = read_yaml(read_text(file), str(file))
    deployment = resolve_model_path(parse_deployment(source), file.parent)
    problems = list(check_combinations(deployment))
    if problems:
        raise SpecError(source.name, [replace(problem, line=source.lines.get(problem.path)) for problem in problems])
    return deployment
