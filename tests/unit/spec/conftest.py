from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.spec.deployment import Deployment
from cluster.spec.load import load_deployment
from cluster.spec.problem import SpecError
from tests.unit.spec.factories import make_checkpoint


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Deployment]:
    """Loads a document, or text, as a file beside a checkpoint."""

    def load(document: dict[str, Any] | str, **options: Any) -> Deployment:
        if not (tmp_path / "checkpoint").exists():
            make_checkpoint(tmp_path / "checkpoint")
        text = document if isinstance(document, str) else yaml.safe_dump(document, sort_keys=False)
        (tmp_path / "deployment.yaml").write_text(text)
        return load_deployment(tmp_path / "deployment.yaml", **options)

    return load


@pytest.fixture
def problems(load: Callable[..., Deployment]) -> Callable[..., list[str]]:
    """What is wrong with a document, a line each."""

    def problems(document: dict[str, Any] | str, **options: Any) -> list[str]:
        with pytest.raises(SpecError) as caught:
            load(document, **options)
        return [str(problem) for problem in caught.value.problems]

    return problems
