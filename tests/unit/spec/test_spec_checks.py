import pytest

from cluster.spec.gpu_checks import GpusHere, unchecked
from tests.unit.spec.factories import make_checkpoint, make_document

pytestmark = pytest.mark.unit


def make_pool(**options):
    return {"name": "all", "role": "mixed", **options}


def test_a_lone_mixed_pool_is_enough(load):
    assert load(make_document(pools=[make_pool()])).spec.pools[0].role == "mixed"


@pytest.mark.parametrize(("role", "missing"), [("prefill", "decode"), ("decode", "prefill")])
def test_a_pool_without_its_counterpart_is_refused(problems, role, missing):
    expected = f"spec.pools: has a {role} pool but none that could {missing}"
    assert problems(make_document(pools=[make_pool(role=role)]))[0].startswith(expected)


def test_two_pools_of_one_name_are_refused(problems):
    assert problems(make_document(pools=[make_pool(), make_pool()])) == [
        "spec.pools[1].name: is 'all', as is spec.pools[0].name; names have to differ (line 11)"
    ]


def test_fronts_on_one_port_are_refused_unless_the_port_is_drawn(problems, load):
    fronts = {"grpc": {"port": 9000}, "http": {"port": 9000}}
    assert "spec.fronts.http.port: is 9000" in problems(make_document(fronts=fronts))[0]
    load(make_document(fronts={"grpc": {"port": 0}, "http": {"port": 0}}))


@pytest.mark.parametrize(
    ("part", "options", "expected"),
    [
        ("engine", {"max_num_batched_tokens": 8, "max_num_seqs": 16}, "max_num_batched_tokens: is 8, less than"),
        ("resources", {"cpus": 1.5}, "resources.cpus: is 1.5; above 1 Ray counts whole ones only"),
    ],
)
def test_options_that_contradict_each_other_are_refused(problems, part, options, expected):
    assert expected in problems(make_document(pools=[make_pool(**{part: options})]))[0]


@pytest.mark.parametrize(
    ("changes", "num_ranks", "expected"),
    [
        ({}, 4, "is 4; so many ranks cannot share the checkpoint's 2 KV heads: use one of 1, 2"),
        (
            {"num_key_value_heads": 4},
            3,
            "is 3; so many ranks cannot share the checkpoint's 4 KV heads: use one of 1, 2, 4",
        ),
        (
            {"num_key_value_heads": 4, "intermediate_size": 174},
            4,
            "174 MLP columns (intermediate_size): use one of 1, 2",
        ),
    ],
)
def test_ranks_that_cannot_share_the_checkpoint_are_refused(problems, tmp_path, changes, num_ranks, expected):
    make_checkpoint(tmp_path / "checkpoint", **changes)
    found = problems(make_document(pools=[make_pool(engine={"tensor_parallel_size": num_ranks})]))
    assert any("spec.pools[0].engine.tensor_parallel_size: " in problem and expected in problem for problem in found)


def test_more_ranks_than_gpus_are_refused(problems):
    pools = [make_pool(engine={"tensor_parallel_size": 2}, resources={"gpus": 1})]
    expected = "tensor_parallel_size: is 2, and resources.gpus is 1: each rank needs a GPU of its own"
    assert expected in problems(make_document(pools=pools))[0]


def test_each_rank_may_have_a_gpu_and_kv_takes_what_is_left_of_it(load, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", num_key_value_heads=2)
    engine = {"tensor_parallel_size": 2, "kv_cache_memory_bytes": "1MiB"}
    load(make_document(pools=[make_pool(engine=engine, resources={"gpus": 2})]))


def test_ranks_share_whole_cores(problems):
    pools = [make_pool(engine={"tensor_parallel_size": 2}, resources={"cpus": 3})]
    expected = "resources.cpus: is 3, of 2 ranks 1.5 each; above 1 Ray counts whole ones only"
    assert expected in problems(make_document(pools=pools))[0]


def test_a_number_format_of_one_pool_alone_is_refused(problems):
    pools = [make_pool(engine={"dtype": "bfloat16"})]
    expected = "spec.pools[0].engine.dtype: is for no pool alone: KV moves between all of them; it is spec.model.dtype"
    assert problems(make_document(pools=pools))[0].startswith(expected)


def test_nccl_is_refused_where_a_pool_has_no_gpu(problems, load):
    pools = [make_pool(name="a", resources={"gpus": 1}), make_pool(name="b")]
    expected = "spec.links.transport: is 'nccl', which moves KV between GPUs; pool 'b' has none, so its KV is in host"
    assert problems(make_document(pools=pools, links={"transport": "nccl"}))[0].startswith(expected)
    load(make_document(pools=pools[:1], links={"transport": "nccl"}))


def test_a_model_that_needs_more_memory_than_it_is_given_is_refused(problems, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", num_parameters=1 << 28)
    pools = [make_pool(resources={"memory": "1GiB"})]
    expected = "resources.memory: an instance needs 1.494 GiB (weights 1 GiB, KV cache 256 MiB, process 250 MiB); 1 GiB"
    assert expected in problems(make_document(pools=pools))[0]


def test_a_model_that_needs_more_memory_than_the_machine_has_is_refused(problems, load, tmp_path):
    make_checkpoint(tmp_path / "checkpoint", num_parameters=1 << 28)
    document = make_document(pools=[make_pool()])
    assert "1 GiB are in this machine" in problems(document, machine_memory_bytes=1 << 30)[0]
    load(document, machine_memory_bytes=2 << 30)


def test_a_kv_cache_too_small_for_one_request_is_refused(problems, load):
    pools = [make_pool(engine={"kv_cache_memory_bytes": "1MiB"})]
    assert (
        "holds 1360 tokens, one request may have 2048; give it at least 1.5 MiB"
        in problems(make_document(pools=pools))[0]
    )
    load(make_document(pools=pools, model={"path": "checkpoint", "dtype": "bfloat16"}))


def test_a_context_longer_than_the_checkpoints_is_refused(problems):
    model = {"path": "checkpoint", "max_model_len": 4096}
    expected = ["spec.model.max_model_len: is 4096; the checkpoint was made for 2048 at most (line 8)"]
    assert problems(make_document(model=model)) == expected


def test_a_checkpoint_that_is_not_there_is_refused(problems):
    assert "is no directory; it should hold config.json" in problems(make_document(model={"path": "nowhere"}))[0]


def test_a_checkpoint_without_weights_is_refused(problems, tmp_path):
    make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint/model.safetensors").unlink()
    assert "holds no *.safetensors file" in problems(make_document())[0]


@pytest.mark.parametrize(("size", "expected"), [(3, "do not even hold its header"), (200, "is cut off: 200 bytes of")])
def test_a_truncated_checkpoint_is_refused_by_name(problems, tmp_path, size, expected):
    make_checkpoint(tmp_path / "checkpoint")
    with (tmp_path / "checkpoint/model.safetensors").open("r+b") as file:
        file.truncate(size)
    [problem] = problems(make_document())
    assert "model.safetensors" in problem
    assert expected in problem


def test_a_checkpoint_with_garbage_for_a_header_is_refused(problems, tmp_path):
    make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint/model.safetensors").write_bytes(b"\x04\0\0\0\0\0\0\0oops" + bytes(100))
    assert "has no safetensors header" in problems(make_document())[0]


@pytest.mark.parametrize("config", ["{", "[]", '{"hidden_size": "big"}'])
def test_a_broken_config_is_refused_by_name(problems, tmp_path, config):
    make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "checkpoint/config.json").write_text(config)
    assert "config.json" in problems(make_document())[0]


def test_an_instance_that_would_give_and_take_requests_at_once_is_refused(problems):
    (problem,) = problems(
        make_document(router={"rescheduling": {"source_below_steps": 500.0, "target_above_steps": 100.0}})
    )
    assert problem.startswith("spec.router.rescheduling.target_above_steps: is 100, less than source_below_steps (500)")


def test_weights_from_a_peer_are_refused_where_there_is_none_with_the_same_part(problems, load):
    model = {"path": "checkpoint", "weights_from": "peer"}
    (problem,) = problems(make_document(model=model, pools=[make_pool()]))
    assert problem.startswith("spec.model.weights_from: is 'peer', and no two instances have the same tensor_parallel")
    assert load(make_document(model=model)).spec.model.weights_from == "peer"
    (problem,) = problems(make_document(model={"path": "checkpoint", "weights_from": "peers"}))
    assert problem.startswith("spec.model.weights_from: is 'peers'; should be 'disk' or 'peer'; did you mean peer?")


@pytest.mark.parametrize(
    ("gpus", "options", "expected"),
    [
        (
            GpusHere((1 << 30,)),
            {},
            "is 1, and the weights take at least 2 GiB of each GPU of an instance; the largest here has 1 GiB, "
            "of which 90% may be used: 1.1 GiB are missing; a larger engine.tensor_parallel_size needs less of each",
        ),
        (GpusHere((8 << 30,)), {"resources": {"gpus": 2}}, "is 2 for an instance; this machine has 1"),
        (GpusHere((8 << 30,)), {"replicas": 3}, "is 1, and all instances to here need 3 GPUs; this machine has 1"),
        (GpusHere((8 << 30,), "cupy 13.6 is too old"), {}, "is 1, and no instance could use a GPU here: cupy 13.6 is"),
    ],
)
def test_gpus_that_cannot_hold_the_model_or_be_used_are_refused(problems, tmp_path, gpus, options, expected):
    make_checkpoint(tmp_path / "checkpoint", num_parameters=1 << 29)
    pools = [make_pool(**{"resources": {"gpus": 1}, **options})]
    (problem,) = problems(make_document(pools=pools), find_gpus=lambda: gpus)
    assert problem.startswith(f"spec.pools[0].resources.gpus: {expected}")


def test_gpus_are_looked_for_only_where_a_pool_asks_for_one_and_what_cannot_be_checked_is_said(load):
    def never() -> GpusHere:
        raise AssertionError("asked in vain")

    deployment = load(make_document(), find_gpus=never)
    assert unchecked(deployment, never) == unchecked(deployment, None) == ""
    deployment = load(make_document(pools=[make_pool(resources={"gpus": 1})]), find_gpus=lambda: GpusHere(flaw="none"))
    said = "not checked: whether the GPUs of all hold the weights, and cupy and NCCL ({});"
    assert unchecked(deployment, lambda: GpusHere(flaw="none")).startswith(said.format("none"))
    assert unchecked(deployment, None).startswith(said.format("instances run on other machines"))
    assert unchecked(deployment, lambda: GpusHere((80 << 30,))) == ""
