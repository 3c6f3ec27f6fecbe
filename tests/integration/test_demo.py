"""`baton demo`, as a user runs it."""

from pathlib import Path

import pytest

from tests.integration.baton_process import environment, run_baton

pytestmark = pytest.mark.integration


def test_the_demonstration_moves_a_story_kills_an_instance_and_changes_no_word(tmp_path: Path) -> None:
    done = run_baton("demo", env=environment(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "story 1 has moved from decode-" in done.stdout
    assert "is killed with kill -9; it held the stories" in done.stdout
    assert done.stdout.splitlines()[-1] == "Every story is the same, token by token, as when it was undisturbed."
    assert done.stdout.count("goes on, in ") >= 1
    assert "no deployment named demo runs here" in run_baton("down", "demo", env=environment(tmp_path)).stderr
