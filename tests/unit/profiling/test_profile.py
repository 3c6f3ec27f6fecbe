"""`baton profile`: the steps that it times are those it says, and its file can be simulated by."""

import pytest

from cluster.latency.hardware import Parallelism
from cluster.latency.read import read_fitted
from cluster.latency.step_shape import StepShape
from cluster.model.kv_cache import KVCache
from cluster.model.load import load_model
from cluster.model.random_checkpoint import make_random_checkpoint
from cluster.model.runner import ModelRunner
from deploy.cli import main
from deploy.profiling.grid import Limits, grid
from deploy.profiling.timed_steps import Step, StepTimer

pytestmark = pytest.mark.unit

QUICK = (
    "--threads",
    "1",
    "--repeats",
    "1",
    "--max-prompt-tokens",
    "64",
    "--max-batch",
    "4",
    "--kv-cache-memory",
    "1MiB",
)


class WatchedRunner(ModelRunner):
    """Keeps what it was to compute."""

    def run(self, output):
        self.spans = [(entry.start, entry.num_tokens) for entry in output.scheduled]
        return super().run(output)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_random_checkpoint(tmp_path_factory.mktemp("models") / "small", max_position_embeddings=512)


@pytest.fixture
def runner(checkpoint):
    model = load_model(checkpoint)
    return WatchedRunner(model, KVCache(64, *model.kv_shape(16), model.dtype))


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["profile", *map(str, arguments)])
        output = capsys.readouterr()
        return int(ended.value.code or 0), output.out, output.err

    return run


@pytest.mark.parametrize(
    "spans", [((0, 40),), ((0, 8), (0, 8)), ((64, 20),), ((31, 1),) * 3, ((31, 1), (100, 1), (0, 16), (128, 16))]
)
def test_the_engine_computes_the_step_that_is_timed_and_keeps_nothing_of_it(runner, spans):
    timer = StepTimer(runner)
    for _ in range(2):
        assert timer.seconds(Step(spans)) > 0
        assert sorted(runner.spans) == sorted(spans)
        timer.check_empty()


def test_a_step_is_seen_as_latency_models_see_it():
    shape = Step(((31, 1), (99, 1), (0, 16), (128, 32))).shape
    assert shape == StepShape(48, float(16**2 + 160**2 - 128**2), 2, 132)


def test_no_step_is_more_than_the_engine_holds():
    limits = Limits(max_prompt_tokens=256, max_batch=16, max_model_len=600, num_blocks=60, block_size=16)
    kinds = grid(limits)
    steps = [step for steps in kinds.values() for step in steps]
    assert all(len(steps) >= 3 for steps in kinds.values())
    assert len(set(steps)) == len(steps)
    assert max(step.num_blocks(16) for step in steps) <= 60
    assert max(start + num_tokens for step in steps for start, num_tokens in step.spans) < 600
    assert {step.shape.num_decodes for step in kinds["decode"]} == {1, 2, 3, 4, 6, 8, 12, 16}


def test_a_profile_is_written_and_read_back(run, checkpoint, tmp_path):
    file = tmp_path / "profile.yaml"
    code, out, err = run(checkpoint, "-o", file, *QUICK)
    assert (code, out) == (0, "")
    assert "steps timed" in err
    assert "Furthest off" in err
    hardware = read_fitted(file.read_text(), str(file))
    assert hardware.model_name == "small"
    assert hardware.device.endswith(", 1 thread")
    assert hardware.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4  # K and V, layers, heads, head_dim, float32
    assert list(hardware.residuals) == ["prefill", "chunk", "decode", "mixed"]
    model = hardware.model(Parallelism())
    assert 0 < model.stages_s(StepShape(0, 0.0, 1, 16))[0] <= model.stages_s(StepShape(0, 0.0, 4, 400))[0]


def test_without_a_file_it_goes_to_stdout(run, checkpoint):
    _, out, _ = run(checkpoint, *QUICK)
    assert read_fitted(out, "stdout").dtype == "float32"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--dtype", "int3"), "'int3' is not one of float32, bfloat16"),
        (("-o", "/"), "--output / is a directory; a file is to be written"),
        (("--kv-cache-memory", "much"), "'much' is no size"),
        (("--kv-cache-memory", "10KiB"), "10 KiB hold the KV of 16 tokens; at least 512 are needed to time anything"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line(run, checkpoint, arguments, message):
    code, _, err = run(checkpoint, *arguments)
    assert code == 2
    [line] = err.splitlines()
    assert message in line


def test_a_checkpoint_that_is_not_there_is_named(run, tmp_path):
    code, _, err = run(tmp_path / "nothing")
    assert code == 2
    assert err.startswith(f"baton: {tmp_path / 'nothing'}")
