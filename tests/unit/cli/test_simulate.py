import json

import pytest
import yaml

from deploy.cli import main
from tests.unit.spec.factories import make_document

pytestmark = pytest.mark.unit


@pytest.fixture
def run(capsys):
    def run(*arguments):
        with pytest.raises(SystemExit) as ended:
            main(["simulate", *(str(argument) for argument in arguments)])
        output = capsys.readouterr()
        return ended.value.code or 0, output.out, output.err

    return run


@pytest.fixture
def deployment(tmp_path):
    """Writes a deployment; `engine` is of both of its pools, `changes` replace parts of its spec."""

    def write(engine=None, **changes):
        pools = [{"name": role, "role": role, "engine": engine or {}} for role in ("prefill", "decode")]
        document = make_document(**{"pools": pools, "slos": {"ttft_ms": 1000.0, "tpot_ms": 50.0}, **changes})
        (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(document, sort_keys=False))
        return tmp_path / "deployment.yaml"

    return write


@pytest.fixture
def trace(tmp_path):
    def write(*rows, header="arrival_s,prompt_len,output_len"):
        (tmp_path / "trace.csv").write_text("\n".join([header, *rows]) + "\n")
        return tmp_path / "trace.csv"

    return write


def network(tmp_path, **facts):
    links = [
        {"source": source, "target": target, "alpha_s": 1e-4, "beta_bytes_per_s": 1e9}
        for source, target in (("a", "b"), ("b", "a"))
    ]
    document = {"apiVersion": "baton/v1", "kind": "Topology", "links": links}
    document["nodes"] = [{"name": name, **facts} for name in ("a", "b")]
    (tmp_path / "net.json").write_text(json.dumps(document))
    return tmp_path / "net.json"


PROFILE = """
apiVersion: baton/v1
kind: LatencyModel
model_name: small
kv_bytes_per_token: 8192
kv_memory_bytes: 256MiB
prefill: {fixed_s: 0.02, s_per_token: 0.001, s_per_square: 0}
decode:
  - {from_batch: 0, fixed_s: 0.015, s_per_context_token: 0, s_per_sequence: 0}
"""
H100 = ("--gpu", "h100", "--model-shape", "llama-3-8b")


def test_figures_uses_and_pictures_come_of_a_simulation(run, deployment, trace, tmp_path):
    pytest.importorskip("matplotlib")
    requests = trace(*(f"{0.1 * at},{500 + at},20" for at in range(40)), "4.0,600000,5")
    code, out, err = run(
        *(deployment(), "--trace", requests, *H100, "--topology", network(tmp_path, gpus=1), "--rates", "5,1000"),
        *("--json", tmp_path / "found.json", "--plot", tmp_path / "found.png"),
    )
    assert (code, err) == (0, "")
    assert "1 × a prompt of 600000 tokens: no instance holds more" in out
    assert "(request 41)" in " ".join(out.split())
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["completed"], found["failed"]) == (40, 1)
    assert found["slo_attainment"] == pytest.approx(40 / 41)
    assert found["goodput_slos_ms"] == {"ttft": 1000.0, "tpot": 50.0}
    assert {"p50_ttft_ms", "p90_tpot_ms", "mean_itl_ms", "p99_e2el_ms", "request_throughput"} <= found.keys()
    assert {use["node"] for use in found["instances"]} == {"a", "b"}
    assert found["links"][0]["num_bytes"] > 40 * 500 * 128 * 1024
    assert found["handovers"] == {"prefill": {"passed": 40}}
    assert [each["rate"] for each in found["rates"]] == [5.0, 1000.0]
    assert found["rates"][0]["attainment"] > found["rates"][1]["attainment"]
    for name in ("found.png", "found-rates.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_all_may_be_refused_as_they_come(run, deployment, trace, tmp_path):
    options = "--goodput", "ttft:1000", "--json", tmp_path / "found.json"
    code, out, err = run(deployment(), "--trace", trace("0,5000000,5"), *H100, *options)
    assert (code, err) == (0, "")
    assert "1 × a prompt of 5000000 tokens: no instance holds more" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["duration"], found["failed"], found["request_throughput"], found["slo_attainment"]) == (0, 1, 0, 0)


def test_requests_that_are_cut_short_are_counted(run, deployment, trace, tmp_path):
    file = deployment({"kv_cache_memory_bytes": "128MiB"})  # 1,024 tokens
    code, out, _ = run(file, "--trace", trace("0,100,5000"), *H100, "--json", tmp_path / "found.json")
    assert code == 0
    assert "1 cut short: no room for all the output asked for" in out
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["completed"], found["cut_short"], found["slo_attainment"]) == (1, 1, 0)


def test_the_same_seed_gives_the_same_figures(run, deployment, trace, tmp_path):
    lengths = trace(*["100,5"] * 20, header="prompt_len,output_len")
    for name in ("a", "b"):
        options = "--rate", "3", "--seed", "7", "--json", tmp_path / name
        assert run(deployment(), "--trace", lengths, *H100, *options)[0] == 0
    first, second = (json.loads((tmp_path / name).read_text()) for name in ("a", "b"))
    del first["simulation"]["wall_s"], first["simulation"]["requests_per_s"]
    del second["simulation"]["wall_s"], second["simulation"]["requests_per_s"]
    assert first == second


def test_a_profile_says_how_long_steps_take(run, deployment, trace, tmp_path):
    (tmp_path / "profile.yaml").write_text(PROFILE)
    options = "--latency", tmp_path / "profile.yaml", "--json", tmp_path / "found.json"
    assert run(deployment(), "--trace", trace("0,100,11"), *options)[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["p50_ttft_ms"] == pytest.approx(20 + 100)
    assert found["p50_tpot_ms"] == pytest.approx(15)


def test_who_dies_is_done_without(run, deployment, trace, tmp_path):
    requests = trace(*(f"{0.5 * at},200,100" for at in range(10)))
    options = "--death", "decode-0:2:3", "--json", tmp_path / "found.json"
    assert run(deployment(), "--trace", requests, *H100, *options)[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert (found["completed"], found["failed"]) == (10, 0)
    assert found["p99_e2el_ms"] > 2000.0 > found["p50_e2el_ms"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ((), "how long steps take is not said: give --gpu and --model-shape, or --latency FILE"),
        (("--gpu", "b9", "--model-shape", "llama-3-8b"), "GPU 'b9' is not known; known are a100"),
        (("--gpu", "h100", "--model-shape", "gpt-9"), "model shape 'gpt-9' is not known; known are llama-2-13b"),
        (("--latency", "nowhere.yaml"), "nowhere.yaml: the document: cannot be read: No such file"),
        (("--gpu", "h100", "--latency", "fit.yaml"), "--latency says how long steps take"),
        ((*H100, "--rate", "0"), "--rate 0 should be above 0"),
        ((*H100, "--rates", "1,x"), "--rates '1,x' should be requests a second, such as 1,2,4"),
        ((*H100, "--rates", "0"), "--rates '0': each should be above 0"),
        ((*H100, "--death", "decode-0"), "--death 'decode-0' should be NAME:SECONDS"),
        ((*H100, "--death", "decode-9:5"), "there is no instance decode-9"),
        ((*H100, "--start-up", "decode-0"), "--start-up 'decode-0' should be NAME:SECONDS, such as decode-0:20"),
        ((*H100, "--start-up", "decode-9:5"), "there is no instance decode-9"),
        ((*H100, "--believed", "net.json"), "--believed says what the router takes the network for"),
        ((*H100, "--message", "inf"), "--message is inf; should be some milliseconds"),
        ((*H100, "--host-step", "inf"), "--host-step is inf; should be some milliseconds"),
        ((*H100, "--plot", "found.pdf"), "--plot found.pdf should end in .png"),
        ((*H100, "--json", "/"), "--json / is a directory; a file is to be written"),
        ((*H100, "--json", "/dev/null/found.json"), "--json /dev/null/found.json: its folder cannot be made: "),
        ((*H100, "--topology", "nowhere.json"), "nowhere.json: the document: cannot be read: No such file"),
    ],
)
def test_what_cannot_be_simulated_is_said_in_a_line(run, deployment, trace, options, message):
    code, _, err = run(deployment(), "--trace", trace("0,10,2"), *options)
    assert code == 2
    assert message in err
    assert err.count("\n") == 1


def test_too_long_a_span_is_said_before_anything_runs(run, deployment, trace):
    options = "--goodput", "ttft:1", "--rates", "1e-9"
    code, _, err = run(deployment(), "--trace", trace("0,10,2", "1,10,2"), *H100, *options)
    assert (code, err.count("\n")) == (2, 1)
    assert "at this rate the 2 requests come within 11,574 days; simulated are 8 at most" in err


def test_what_lies_beside_the_steps_can_be_given(run, deployment, trace, tmp_path):
    (tmp_path / "profile.yaml").write_text(PROFILE)
    options = "--latency", tmp_path / "profile.yaml", "--json", tmp_path / "found.json"
    options += "--message", "5", "--host-step", "2", "--start-up", "prefill-0:3"
    assert run(deployment(), "--trace", trace("0,100,11"), *options)[0] == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["p50_ttft_ms"] == pytest.approx(3000 + 20 + 100 + 2 + 2 * 5)
    assert found["p50_tpot_ms"] == pytest.approx(15 + 2 + 5 / 10)  # the handover's message, over ten tokens


def test_the_router_may_believe_other_links_than_there_are(run, deployment, trace, tmp_path):
    (tmp_path / "other.json").write_text(network(tmp_path, gpus=1).read_text().replace('"b"', '"c"'))
    asked = deployment(), "--trace", trace("0,10,2"), *H100, "--topology", network(tmp_path, gpus=1)
    assert run(*asked, "--believed", network(tmp_path, gpus=1))[0] == 0
    code, _, err = run(*asked, "--believed", tmp_path / "other.json")
    assert (code, err) == (2, "baton: prefill-0 is on node b, of which the router believes nothing\n")


def test_a_file_of_lengths_needs_a_rate(run, deployment, trace):
    lengths = trace("10,2", header="prompt_len,output_len")
    assert run(deployment(), "--trace", lengths, *H100)[::2] == (
        2,
        f"baton: {lengths} holds no arrival times; give --rate\n",
    )


def test_a_wrong_trace_is_named_with_its_line(run, deployment, trace):
    code, _, err = run(deployment(), "--trace", trace("0,10,2", "1,10,0"), *H100)
    assert (code, err) == (2, f"baton: {trace('0,10,2', '1,10,0')}, line 3: output_len: an output of 0 tokens\n")


@pytest.mark.parametrize(
    ("engine", "shape", "message"),
    [
        ({}, "llama-3-70b", "pools[0].engine.tensor_parallel_size: h100/llama-3-70b at TP1: weights of"),
        ({"tensor_parallel_size": 3}, "llama-3-8b", "tensor_parallel_size: h100/llama-3-8b: cannot be put together"),
        ({"kv_cache_memory_bytes": "200GiB"}, "llama-3-8b", "kv_cache_memory_bytes: is 200 GiB; beside the weights"),
        ({"kv_cache_memory_bytes": 5}, "llama-3-8b", "kv_cache_memory_bytes: is less than one block of 2 MiB"),
    ],
)
def test_what_does_not_fit_is_named_with_its_field(run, deployment, trace, engine, shape, message):
    file = deployment(engine)
    code, _, err = run(file, "--trace", trace("0,10,2"), "--gpu", "h100", "--model-shape", shape)
    assert code == 2
    assert err.startswith(f"baton: {file}: spec.")
    assert message in err


def test_too_few_gpus_are_named_with_the_pool(run, deployment, trace, tmp_path):
    options = "--topology", network(tmp_path, gpus=1)
    code, _, err = run(deployment({"tensor_parallel_size": 2}), "--trace", trace("0,10,2"), *H100, *options)
    assert code == 2
    assert "spec.pools[0].resources.gpus" in err
