import json

import pytest
import yaml

from tests.unit.spec.factories import make_checkpoint, make_document

pytestmark = pytest.mark.unit


@pytest.fixture
def deployment(tmp_path):
    """Writes a deployment of one prefill and two decode instances; `resources` are of each."""

    def write(**resources):
        make_checkpoint(tmp_path / "checkpoint")
        pools = [
            {"name": "prefill", "role": "prefill", "resources": resources},
            {"name": "decode", "role": "decode", "replicas": 2, "resources": resources},
        ]
        (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(make_document(pools=pools), sort_keys=False))
        return tmp_path / "deployment.yaml"

    return write


@pytest.fixture
def network(tmp_path):
    """Writes a topology of four nodes, n2 behind a slow cable; `facts` are of each node."""

    def write(**facts):
        names = [f"n{at}" for at in range(4)]
        links = [
            {"source": a, "target": b, "alpha_s": 1e-4, "beta_bytes_per_s": 1e8 if "n2" in (a, b) else 1e9}
            for a in names
            for b in names
            if a != b
        ]
        nodes = [{"name": name, **facts} for name in names]
        document = {"apiVersion": "baton/v1", "kind": "Topology", "nodes": nodes, "links": links}
        (tmp_path / "net.json").write_text(json.dumps(document))
        return tmp_path / "net.json"

    return write


def test_the_assignment_and_what_others_would_have_cost_are_shown(run_alone, deployment, network):
    code, out, err = run_alone("place", deployment(gpus=1), "--topology", network(gpus=1), "--explain")
    assert (code, err) == (0, "")
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line.split()}
    nodes = {lines[name][2] for name in ("prefill-0", "decode-0", "decode-1")}
    assert nodes == {"n0", "n1", "n3"}
    assert lines["instance"] == ["instance", "role", "node", "GPUs", "as", "planned"], "Ray chooses among a node's"
    assert lines["prefill-0"][1:] == ["prefill", lines["prefill-0"][2], "0"]
    assert "2048 prompt tokens are 1.5 MiB of KV" in out
    assert "1.67 ms   the best there is" in out  # 0.1 ms, and 1.5 MiB at 1 GB/s
    assert "spread evenly, in the order listed" in out
    assert "the worst there is" in out
    assert "Predicted transfers" in out
    assert [line.split()[-2:] for line in out.splitlines() if line.startswith(lines["prefill-0"][2])] == [
        ["1.67", "ms"],
        ["1.67", "ms"],
    ]


def test_a_pool_that_fits_nowhere_is_named_with_its_field_and_line(run_alone, deployment, network):
    code, _, err = run_alone("place", deployment(gpus=2), "--topology", network(gpus=1))
    assert code == 2
    assert "deployment.yaml: spec.pools[0].resources.gpus: an instance needs 2 GPUs; the node with most, n0, has" in err
    assert "(1 GPU short) (pool prefill)" in err
    assert "(line " in err


def test_what_is_wrong_with_the_topology_is_said_in_its_own_words(run_alone, deployment, network, tmp_path):
    file = network(gpus=1)
    file.write_text(file.read_text().replace('"n3", "target"', '"n9", "target"', 1))
    code, _, err = run_alone("place", deployment(gpus=1), "--topology", file)
    assert code == 2
    assert "net.json: links[9].source: is 'n9'; there is no such node in nodes" in err
    code, _, err = run_alone("place", tmp_path / "deployment.yaml", "--topology", tmp_path / "none.yaml")
    assert code == 2
    assert "none.yaml: the document: cannot be read: No such file" in err


def test_without_a_topology_it_says_what_is_needed(run_alone, deployment):
    code, _, err = run_alone("place", deployment(gpus=1))
    assert code == 2
    assert "--topology FILE" in err
