"""What fits nowhere, named with its place in the deployment's file."""

from pathlib import Path

from cluster.spec.deployment import Deployment
from cluster.spec.problem import Problem, SpecError
from cluster.spec.yaml_source import read_yaml
from deploy.needs import place_in_yaml
from deploy.planner.placement import NoRoom


def spec_error(file: Path, deployment: Deployment, error: NoRoom) -> SpecError:
    """The line is that of the field, or of what stands around it where the field is left out."""
    path = place_in_yaml(deployment, error.pool, error.field)
    lines = read_yaml(file.read_text(), str(file)).lines
    line = next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), None)
    return SpecError(str(file), [Problem(path=path, message=f"{error} (pool {error.pool})", line=line)])
