"""What integration tests share."""

import pytest

from tests.integration.baton_process import environment


@pytest.fixture
def env(tmp_path):
    """For `baton` on a Ray of its own."""
    return environment(tmp_path)
