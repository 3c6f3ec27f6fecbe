from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from cluster.handshake import draw_secret
from cluster.spec.deployment import Deployment, Router
from cluster.spec.load import load_deployment
from cluster.spec.quantity import format_bytes, format_count, parse_bytes
from router.config import RouterConfig
from tests.unit.spec.factories import make_document

pytestmark = pytest.mark.unit


def test_a_small_deployment_is_filled_with_defaults(load, tmp_path):
    spec = load(make_document()).spec
    assert spec.model.path == str(tmp_path / "checkpoint")
    assert spec.model.served_model_name == "checkpoint"
    assert spec.fronts.grpc.port == 50051
    assert spec.fronts.http.port == 8000
    assert spec.pools[1].instance_names() == ["decode-0", "decode-1"]


def test_the_routers_own_defaults_are_those_of_the_schema():
    config = RouterConfig(name="r", deployment="d", model_name="m", model_path="p", secret=draw_secret(), term=1)
    for name, field in Router.model_fields.items():
        if name == "rescheduling":
            assert asdict(config.rescheduling) == field.default.model_dump()
        else:
            assert getattr(config, name) == field.default


def test_a_plain_off_is_what_it_says(load):
    assert load(make_document(placement={"replace": False})).spec.placement.replace == "off"


def test_the_embedded_deployment_is_valid():
    path = Path(__file__).parents[3] / "deploy/local.yaml"
    if not (path.parent / "models/baton-tiny/model.safetensors").exists():
        pytest.skip("the bundled model has not been trained here")
    deployment = load_deployment(path)
    assert [(pool.role, pool.replicas) for pool in deployment.spec.pools] == [("prefill", 1), ("decode", 2)]


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        ({"model": {"path": "x", "dtyp": 1}}, "spec.model.dtyp: is not known; did you mean dtype? (line 8)"),
        ({"pools": [{"name": "a", "role": "prefil"}]}, "did you mean prefill? (line 10)"),
        ({"pools": [{"role": "mixed"}]}, "spec.pools[0].name: is missing (line 9)"),
        ({"pools": []}, "spec.pools: is empty; should have at least one entry"),
        ({"pools": [{"name": "a", "role": "mixed", "replicas": "2"}]}, "the text '2'; should be a number (no quotes"),
        ({"pools": [{"name": "a", "role": "mixed", "replicas": True}]}, "is True; should be a valid integer"),
        ({"pools": [{"name": "a", "role": "mixed", "replicas": -1}]}, "is -1; should be greater than or equal to 1"),
        ({"pools": [{"name": "A b", "role": "mixed"}]}, "should be lower-case letters, digits and dashes"),
        ({"pools": [{"name": "a", "role": "mixed", "engine": 3}]}, "engine: should be a mapping with the keys block"),
        ({"links": {"transport": "rdma"}}, "spec.links.transport: is 'rdma'; should be 'auto', 'shm', 'tcp' or 'nccl'"),
        ({"router": {"request_timeout_s": float("inf")}}, "should be a finite number"),
        ({"fronts": {"http": {"port": 70000}}}, "spec.fronts.http.port: is 70000; should be less than or equal to"),
        ({"placement": {"policy": "measure"}}, "should be 'measured' or 'spread'; did you mean measured?"),
        ({"placement": {"replace": True}}, "spec.placement.replace: is True; should be 'off', 'warn' or 'apply'"),
        ({"placement": {"margin": 1.0}}, "spec.placement.margin: is 1.0; should be less than 1"),
        ({"placement": {"probe_budget_s": 0.5}}, "should be greater than or equal to 1"),
        ({"placement": {"check_interval_s": float("inf")}}, "should be a finite number"),
        ({"placement": {"probe_budget": 3}}, "did you mean probe_budget_s?"),
        ({"model": None}, "spec.model: should be a mapping"),
    ],
)
def test_a_wrong_field_is_refused_with_its_path_and_what_would_be_right(problems, part, expected):
    assert any(expected in problem for problem in problems(make_document(**part)))


def test_all_wrong_fields_are_told_at_once(problems):
    pools = [{"name": "a", "role": "x", "replicas": 0}]
    assert len(problems(make_document(pools=pools, links={"transport": 1}))) == 3


def test_a_key_given_twice_is_refused(problems):
    text = yaml.safe_dump(make_document(), sort_keys=False)
    doubled = text.replace("  model:\n", "  model:\n    path: elsewhere\n")
    assert problems(doubled) == ["spec.model.path: is given twice, first in line 7; keep one (line 8)"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "is empty"),
        ("a: [1", "is not valid YAML"),
        ("a: 1\n---\nb: 2", "is not valid YAML: expected a single document"),
        ("&a [*a]", "contains itself"),
        ("a: \x00", "is not valid YAML"),
        ("just text", "should be a mapping with the keys apiVersion, kind, metadata, spec"),
    ],
)
def test_text_that_is_no_deployment_is_refused(problems, text, expected):
    assert expected in problems(text)[0]


def test_a_file_that_is_not_there_is_one_problem(tmp_path):
    with pytest.raises(ValueError, match=r"none\.yaml: the document: cannot be read: No such file"):
        load_deployment(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "size"), [("512MiB", 512 << 20), ("1.5G", 1_500_000_000), ("7", 7), ("2 gib", 2 << 30)]
)
def test_sizes_are_read_with_their_units(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["", "MiB", "1 lightyear", "-1G", "1e3"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(ValueError, match="is no size"):
        parse_bytes(text)


def test_sizes_are_written_in_the_unit_that_fits():
    assert [format_bytes(size) for size in (10, 2048, 3 << 30)] == ["10 B", "2 KiB", "3 GiB"]


def test_numbers_have_their_nouns():
    counts = [format_count(number, "link") for number in (0, 1, 2, 0.5, 1234567)]
    assert counts == ["0 links", "1 link", "2 links", "0.5 links", "1234567 links"]


def test_the_json_schema_describes_every_field():
    schema = Deployment.model_json_schema()
    assert schema["$defs"]["Engine"]["additionalProperties"] is False
    assert "saturation length" in schema["$defs"]["Engine"]["properties"]["max_num_batched_tokens"]["description"]
