"""What `baton up` refuses, in one line."""

import pytest
from safetensors.torch import load_file, save_file

from tests.integration.baton_process import run_baton, write_deployment

pytestmark = [pytest.mark.integration, pytest.mark.timeout(180)]


def refused(file, env, *arguments):
    """The one line that says why it does not come up."""
    done = run_baton("up", file, *arguments, env=env)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1, done.stderr
    return done.stderr


def test_more_than_the_cluster_has_is_refused(tmp_path, env):
    file = write_deployment(tmp_path, resources={"cpus": 1000.0})
    assert "not enough CPU: the deployment needs 2000, " in refused(file, env)


def test_a_checkpoint_of_the_wrong_shape_is_refused_by_name_also_detached(tmp_path, env):
    file = write_deployment(tmp_path)
    weights = load_file(tmp_path / "checkpoint/model.safetensors")
    weights["model.norm.weight"] = weights["model.norm.weight"][:-1].clone()
    save_file(weights, tmp_path / "checkpoint/model.safetensors")
    assert "model.norm.weight" in refused(file, env, "--detach")
    assert run_baton("down", env=env).returncode == 1
