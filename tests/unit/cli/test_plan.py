"""`baton plan` as people type it, with short simulations."""

import json
import random

import pytest
import yaml

from cluster.spec.checks import check_combinations
from cluster.spec.load import load_deployment, parse_deployment
from cluster.spec.yaml_source import read_yaml
from tests.unit.spec.factories import make_checkpoint, make_document

pytestmark = pytest.mark.unit

PROFILE = """apiVersion: baton/v1
kind: LatencyModel
model_name: tiny
kv_bytes_per_token: 1024
kv_memory_bytes: 64MiB
prefill: {fixed_s: 0.01, s_per_token: 1.0e-3, s_per_square: 1.0e-8}
decode:
  - {from_batch: 0, fixed_s: 0.01, s_per_context_token: 1.0e-6, s_per_sequence: 1.0e-3}
"""


@pytest.fixture
def files(tmp_path):
    make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(make_document(), sort_keys=False))
    (tmp_path / "profile.yaml").write_text(PROFILE)
    lengths = "prompt_len,output_len\n" + "".join(f"{40 + at % 60},{5 + at % 20}\n" for at in range(100))
    (tmp_path / "lengths.csv").write_text(lengths)
    write_network(tmp_path, cpus=1)
    return tmp_path


def write_network(folder, **facts):
    links = [{"source": "a", "target": "b", "alpha_s": 1e-4, "beta_bytes_per_s": 1e9}]
    links.append(links[0] | {"source": "b", "target": "a"})
    nodes = [{"name": name, **facts} for name in "ab"]
    document = {"apiVersion": "baton/v1", "kind": "Topology", "nodes": nodes, "links": links}
    (folder / "net.json").write_text(json.dumps(document))


def plan(run_alone, files, *options, latency=True):
    given = ["--latency", files / "profile.yaml"] if latency else []
    return run_alone(
        "plan",
        files / "deployment.yaml",
        *(
            "--topology",
            files / "net.json",
            "--workload",
            files / "lengths.csv",
            "--processes",
            "0",
            "--simulated",
            "2",
        ),
        *given,
        *options,
    )


LIMITS = ("--goodput", "ttft:400", "tpot:40")


@pytest.fixture
def is_confirmed_soon(monkeypatch):
    """What is found is simulated again for a few seconds only."""
    monkeypatch.setattr("deploy.planning.interval._LEAST_S", 1.0)
    monkeypatch.setattr("deploy.planning.interval._TTFTS", 1.0)
    monkeypatch.setattr("deploy.planning.interval._LONGER", 2.0)
    monkeypatch.setattr("deploy.planning.confirm.SEEDS", (500, 501))


@pytest.mark.usefixtures("is_confirmed_soon")
def test_the_plan_is_a_deployment_that_loads(run_alone, files):
    code, out, err = plan(run_alone, files, *LIMITS, "-o", files / "best.yaml", "--json", files / "best.json")
    assert code == 0, err
    assert "predicted:" in out
    assert "more per GPU than" in out
    assert "units compared" in out
    found = load_deployment(files / "best.yaml")
    assert sum(pool.replicas for pool in found.spec.pools) <= 2
    assert (found.spec.slos.ttft_ms, found.spec.slos.tpot_ms) == (400.0, 40.0)
    best = json.loads((files / "best.json").read_text())["best"]
    assert best["attainment"]["both"] >= 0.9
    assert best["baton_up_cannot_run"] == []
    assert sum(pool["instances"] for pool in best["pools"]) == sum(pool.replicas for pool in found.spec.pools)


@pytest.mark.usefixtures("is_confirmed_soon")
def test_what_another_bandwidth_between_nodes_would_change_is_said_and_drawn(run_alone, files):
    picture = files / "found.png"
    code, out, err = plan(run_alone, files, *LIMITS, "--crossover", "--plot", picture)
    assert code == 0, err
    rows = {line.split("  ")[0]: line for line in out.splitlines()}
    assert {"nothing", "10 Gbit/s", "400 Gbit/s", "any bandwidth"} <= set(rows)
    assert rows["any bandwidth"].endswith("1 × prefill TP1 + 1 × decode TP1")
    assert "the best changes" in out or "are the same at every bandwidth" in out
    assert "with 25 Gbit/s between nodes" in err
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("is_confirmed_soon")
def test_the_file_simulated_serves_what_was_predicted(run_alone, files, monkeypatch):
    monkeypatch.setattr("deploy.planning.interval._LONGER", 300.0)
    monkeypatch.chdir(files)
    write_network(files, gpus=1)
    machine = ("--gpu", "distserve-a100", "--model-shape", "opt-13b")
    asked = (*machine, "--goodput", "ttft:90 tpot:25", "--rate", "14")
    code, _, err = plan(run_alone, files, *asked, "-o", "best.yaml", "--json", "best.json", latency=False)
    assert code == 0, err
    predicted = json.loads((files / "best.json").read_text())["best"]["attainment"]["both"]
    header, *lengths = (files / "lengths.csv").read_text().splitlines(keepends=True)
    long = lengths * 20
    random.Random(0).shuffle(long)  # a plan is for requests in any order
    (files / "long.csv").write_text(header + "".join(long))
    traffic = ("--topology", "net.json", "--trace", "long.csv", "--rate", "14", "--json", "found.json")
    code, _, err = run_alone("simulate", "best.yaml", *machine, *traffic)
    assert code == 0, err
    found = json.loads((files / "found.json").read_text())
    assert found["completed"] == 2000
    assert 0.9 <= predicted < 0.99
    assert found["slo_attainment"] == pytest.approx(predicted, abs=0.03)


def test_a_plan_of_several_ranks_is_written_for_up_to_run(run_alone, files):
    write_network(files, gpus=2)
    options = (
        "--gpu",
        "distserve-a100",
        "--model-shape",
        "opt-66b",
        "--goodput",
        "ttft:2500 tpot:150",
        "--rate",
        "0.3",
    )
    code, out, err = plan(run_alone, files, *options, "-o", files / "best.yaml", latency=False)
    assert code == 0, err
    assert "cannot run" not in out
    header = (files / "best.yaml").read_text()
    assert "planned for opt-66b on distserve-a100; spec.model.path is still" in header
    assert "planned for opt-66b on distserve-a100; spec.model.path is still" in out
    assert "# placed so by the planner" in header
    source = read_yaml(header, "best.yaml")
    deployment = parse_deployment(source)
    assert deployment.spec.pools[0].engine.tensor_parallel_size == 2
    assert list(check_combinations(deployment)) == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--watch", "--rate", "3"), "--rate means nothing with --watch"),
        (("--watch", "--allow-pp"), "--allow-pp means nothing with --watch"),
        (("--watch", "--gpu", "a=h100", "--gpu", "b=a100"), "--watch takes all nodes to have the same GPU"),
        (("--apply",), "--apply means nothing without --watch"),
        (("--checks", "2"), "--checks means nothing without --watch"),
    ],
)
def test_options_that_would_be_ignored_are_refused(run_alone, files, options, said):
    code, _, err = plan(run_alone, files, *LIMITS, *options)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((), "nothing says how fast"),
        (("--goodput", "e2el:100"), "e2el"),
        (("--json", "/"), "--json / is a directory; a file is to be written"),
        (("-o", "/"), "--output / is a directory"),
        (("--plot", "found.svg"), "--plot found.svg should end in .png"),
        (("--goodput", "ttft:1"), "TTFT: of 1 ms"),
        (("--goodput", "tpot:1"), "ms too long"),
        ((*LIMITS, "--rate", "100000"), "are too many"),
        ((*LIMITS, "--rate", "nan"), "a rate of nan requests a second asks for nothing that can be planned"),
        ((*LIMITS, "--rate", "inf"), "a rate of inf requests a second asks for nothing that can be planned"),
        ((*LIMITS, "--simulated", "inf"), "--simulated inf: trials have to end"),
    ],
)
def test_what_cannot_be_asked_or_done_is_one_line(run_alone, files, options, said):
    code, _, err = plan(run_alone, files, *options)
    assert code == 2
    assert said in err.splitlines()[-1]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--gpu", "b200", "--model-shape", "opt-13b"), "b200"),
        (("--gpu", "distserve-a100", "--model-shape", "opt-14b"), "opt-14b"),
        (("--gpu", "nowhere=h100", "--model-shape", "llama-3-8b"), "no node or group is called 'nowhere'"),
        (("--gpu", "a=h100", "--model-shape", "llama-3-8b"), "no --gpu says what b has"),
        (("--gpu", "distserve-a100", "--model-shape", "opt-13b"), "no GPU"),
    ],
)
def test_unknown_names_and_missing_gpus_are_one_line(run_alone, files, options, said):
    code, _, err = plan(run_alone, files, *LIMITS, *options, latency=False)
    assert code == 2
    assert said in err.splitlines()[-1]


def test_what_may_be_used_is_too_little_for_the_weights(run_alone, files):
    write_network(files, gpus=2)
    options = ("--gpu", "h100", "--model-shape", "llama-3-70b", "--gpus", "1")
    code, _, err = plan(run_alone, files, "--goodput", "ttft:2000", "tpot:100", *options, latency=False)
    assert code == 2
    assert "a mixed instance TP2 needs 2 GPUs, and 1 may be used" in err.splitlines()[-1]
    assert "simulated" not in err


@pytest.mark.usefixtures("is_confirmed_soon")
def test_requests_that_nothing_holds_and_gpus_that_are_not_there_are_told_of(run_alone, files):
    with (files / "lengths.csv").open("a") as file:
        file.write("5000000,10\n")
    code, _, err = plan(run_alone, files, *LIMITS, "--gpus", "9", "--rate", "3")
    assert code == 0, err
    assert "1 of 101 requests are longer than " in err
    assert "(the first is number 101)" in err
    assert "--gpus 9: there are 2" in err


def test_an_empty_workload_is_named(run_alone, files):
    (files / "lengths.csv").write_text("prompt_len,output_len\n")
    code, _, err = plan(run_alone, files, *LIMITS)
    assert code == 2
    assert "lengths.csv" in err


def test_watching_needs_something_that_runs(run_alone, files):
    code, _, err = plan(run_alone, files, *LIMITS, "--watch")
    assert code == 1
    assert "does not run here" in err
