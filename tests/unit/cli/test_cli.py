import json
import os
import socket
import subprocess
import sys

import pytest
import yaml

from cluster.spec.gpu_checks import GpusHere
from deploy import preconditions
from deploy.cli import main
from deploy.errors import DeployError
from deploy.events import Event, EventKind
from deploy.gpus_here import gpus_here
from tests.unit.spec.factories import make_checkpoint, make_document

pytestmark = pytest.mark.unit


@pytest.fixture
def deployment(tmp_path):
    """Writes a deployment file beside a checkpoint."""

    def write(**changes):
        if not (tmp_path / "checkpoint").exists():
            make_checkpoint(tmp_path / "checkpoint")
        (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(make_document(**changes)))
        return tmp_path / "deployment.yaml"

    return write


@pytest.fixture
def taken_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_a_valid_file_is_said_to_be_valid(run_alone, deployment):
    code, out, err = run_alone("validate", deployment())
    assert (code, err) == (0, "")
    assert "is valid: test serves checkpoint on 1 × prefill (prefill), 2 × decode (decode)" in out


def test_a_machine_without_gpus_says_what_it_could_not_check(run_alone, deployment, monkeypatch):
    monkeypatch.setattr(preconditions, "gpus_here", lambda: GpusHere(flaw="there is no GPU for torch"))
    pools = [{"name": "all", "role": "mixed", "resources": {"gpus": 1}}]
    code, out, err = run_alone("validate", deployment(pools=pools))
    assert (code, err) == (0, "")
    assert "not checked: whether the GPUs of all hold the weights, and cupy and NCCL (there is no GPU for torch)" in out


def test_gpus_that_are_too_small_are_refused_before_anything_starts(run_alone, deployment, monkeypatch):
    monkeypatch.setattr(preconditions, "gpus_here", lambda: GpusHere((1000,)))
    pools = [{"name": "all", "role": "mixed", "resources": {"gpus": 1}}]
    code, out, err = run_alone("up", deployment(pools=pools))
    assert (code, out) == (2, "")
    assert "spec.pools[0].resources.gpus: is 1, and the weights take at least 3.906 KiB of each GPU" in err


def test_a_machine_says_which_gpus_it_has_or_why_there_are_none():
    found = gpus_here()
    assert found.memory_bytes or "there is no GPU" in found.flaw


def test_a_machine_that_fails_to_say_which_gpus_it_has_says_why(monkeypatch, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'Traceback:' >&2\necho 'RuntimeError: no driver' >&2\nexit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    with pytest.raises(DeployError, match=r"which GPUs it has: RuntimeError: no driver$"):
        gpus_here()


@pytest.mark.parametrize("command", ["validate", "up"])
def test_a_wrong_file_is_told_on_stderr_a_line_for_each_problem(run_alone, deployment, command):
    pools = [{"name": "a", "role": "prefil", "replica": 1}]
    code, out, err = run_alone(command, deployment(pools=pools))
    assert (code, out) == (2, "")
    lines = err.splitlines()
    assert len(lines) == 2
    assert all(line.startswith("baton: ") and "spec.pools[0]." in line for line in lines)


def test_the_schema_is_json(run_alone):
    code, out, _ = run_alone("schema")
    assert code == 0
    assert json.loads(out)["title"] == "Deployment"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nonsense"], "No such command 'nonsense'"),
        (["up"], "Missing argument 'file'"),
        (["up", "--port", "1", "x"], "No such option: --port"),
        (["generate", "hello", "--max-tokens", "many"], "Invalid value for '--max-tokens'"),
        (["model", "init", "/tmp/x", "--dtype", "int4"], "Invalid value for '--dtype'"),
        (["bench", "serve", "--requests", "0"], "Invalid value for '--requests'"),
        (["bench", "serve"], "--trace is missing"),
        (["bench", "serve", "a.yaml", "b.yaml"], "'b.yaml' is neither the one deployment file nor a limit"),
    ],
)
def test_a_wrong_command_line_is_one_line_on_stderr(run_alone, arguments, expected):
    code, out, err = run_alone(*arguments)
    assert (code, out) == (2, "")
    assert expected in err
    assert err.count("\n") == 1


def test_a_port_in_use_is_said_in_one_line(run_alone, deployment, taken_port):
    fronts = {"grpc": {"port": 0}, "http": {"port": taken_port}}
    code, out, err = run_alone("up", deployment(fronts=fronts))
    assert (code, out) == (1, "")
    assert err == f"baton: 127.0.0.1:{taken_port} (spec.fronts.http) is in use\n"


def test_a_host_that_is_not_here_is_said_in_one_line(run_alone, deployment):
    code, _, err = run_alone("up", deployment(fronts={"grpc": {"host": "192.0.2.77"}}))
    assert (code, err.count("\n")) == (1, 1)
    assert "192.0.2.77:50051 (spec.fronts.grpc) cannot be used" in err


@pytest.mark.parametrize(
    ("address", "code", "expected"),
    [
        ("127.0.0.1:1", 1, "Ray does not answer at 127.0.0.1:1 (RAY_ADDRESS): Connection refused"),
        ("http://127.0.0.1:8265", 2, "joins a cluster by the address of its head, such as 10.0.0.1:6379"),
        ("somewhere", 2, "RAY_ADDRESS is 'somewhere'; should be HOST:PORT"),
    ],
)
def test_a_ray_that_cannot_be_reached_is_said_in_one_line(run_alone, deployment, monkeypatch, address, code, expected):
    monkeypatch.setenv("RAY_ADDRESS", address)
    assert (result := run_alone("up", deployment()))[0] == code
    assert expected in result[2]
    assert result[2].count("\n") == 1


@pytest.mark.parametrize("command", [["status"], ["generate", "hello"]])
def test_a_deployment_that_does_not_answer_is_said_in_one_line(run_alone, command):
    code, _, err = run_alone(*command, "--address", "127.0.0.1:1")
    assert (code, err) == (1, "baton: no deployment answers at 127.0.0.1:1; `baton up` starts one\n")


def test_there_is_nothing_to_take_down(run_alone):
    assert run_alone("down") == (1, "", "baton: no deployment runs here\n")
    assert run_alone("down", "mine") == (1, "", "baton: no deployment named mine runs here\n")


def test_a_directory_with_something_in_it_is_not_overwritten(run_alone, tmp_path):
    make_checkpoint(tmp_path / "mine")
    code, _, err = run_alone("model", "init", tmp_path / "mine")
    assert code == 2
    assert "exists and is not empty" in err


def test_help_answers_without_loading_what_it_does_not_need():
    code = (
        "import sys, contextlib, deploy.cli\n"
        "with contextlib.suppress(SystemExit): deploy.cli.main(['--help'])\n"
        "print(sorted({'torch', 'ray', 'grpc', 'numpy', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


def test_events_are_shown_as_plain_lines_where_there_is_no_terminal(capsys):
    from deploy.cli.show import display

    with display() as show:
        show(Event(kind=EventKind.STARTING, member="d-0"))
        show(Event(kind=EventKind.PROGRESS, member="d-0", text="loading weights"))
        show(Event(kind=EventKind.GONE, member="d-0", text="killed; made again in 0.5 s"))
    expected = ["d-0: starting", "d-0: loading weights", "d-0: gone: killed; made again in 0.5 s"]
    assert capsys.readouterr().out.splitlines() == expected


@pytest.mark.parametrize(
    ("has_token", "mode", "expected"),
    [(True, None, "token"), (True, "disabled", "disabled"), (False, None, None)],
)
def test_ray_is_shown_its_token_where_there_is_one_and_nobody_says_otherwise(
    tmp_path, monkeypatch, has_token, mode, expected
):
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("RAY_AUTH_MODE", mode or "")
    if mode is None:
        monkeypatch.delenv("RAY_AUTH_MODE")
    if has_token:
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("0" * 64)
    with pytest.raises(SystemExit):
        main(["validate", str(tmp_path / "missing.yaml")])
    assert os.environ.get("RAY_AUTH_MODE") == expected
