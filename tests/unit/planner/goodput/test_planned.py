"""Plans as YAML: which of them is written, and what the file says of it."""

from dataclasses import replace

import pytest
import yaml

from cluster.latency.hardware import Parallelism
from cluster.role import InstanceRole
from cluster.spec.load import load_deployment, parse_deployment
from cluster.spec.yaml_source import read_yaml
from deploy.errors import InputError
from deploy.planner.goodput.candidates import Catalogue
from deploy.planner.goodput.find_plans import find_plans
from deploy.planner.goodput.question import Slos
from deploy.planner.goodput.unit import Unit
from deploy.planning.planned import Planned, choose
from deploy.roles import ROLE_POLICIES
from tests.unit.planner.goodput.factories import OPT_66B, estimated, make_question, make_topology
from tests.unit.spec.factories import make_checkpoint, make_document

pytestmark = pytest.mark.unit


@pytest.fixture
def file(tmp_path):
    make_checkpoint(tmp_path / "checkpoint")
    (tmp_path / "deployment.yaml").write_text(yaml.safe_dump(make_document(), sort_keys=False))
    return tmp_path / "deployment.yaml"


def found_for(question):
    return find_plans(question, estimated(question))


def test_the_best_plan_is_written_with_its_parallelism(file):
    question = make_question(topology=make_topology(1, 4), slos=Slos(ttft_s=0.25, tpot_s=0.05))
    chosen, which = choose(found_for(question))
    assert which == "the best plan"
    planned = Planned(deployment=load_deployment(file), question=question, on_gpu=True, model_shape="opt-13b")
    written = file.with_name("best.yaml")
    written.write_text(planned.yaml(chosen))
    found = parse_deployment(read_yaml(written.read_text(), written.name))  # its checkpoint is a smaller model's
    assert max(pool.engine.tensor_parallel_size for pool in found.spec.pools) > 1
    assert sum(pool.replicas for pool in found.spec.pools) == len(chosen.layout.seats)
    for pool, own in zip(found.spec.pools, chosen.whole.pools, strict=True):
        assert pool.engine.tensor_parallel_size == own.parallelism.tp
        saturation = Catalogue(question).rates_of(own).saturation_tokens
        budget = ROLE_POLICIES[InstanceRole(pool.role)].token_budget(saturation, question.engine.max_num_seqs)
        assert pool.engine.max_num_batched_tokens == (own.token_budget or budget), "as it was simulated"
    lines = written.read_text().splitlines()
    assert any(line.startswith("# planned for opt-13b on ") and "spec.model.path is still" in line for line in lines)
    assert any(line.startswith("#   n0: ") for line in lines)


def test_a_plan_with_stages_gives_way_to_one_that_a_file_can_say():
    plans = found_for(make_question(OPT_66B, make_topology(1, 4)))
    pools = tuple(replace(pool, parallelism=Parallelism(1, 2)) for pool in plans.best.whole.pools)
    staged = replace(plans.best, layout=replace(plans.best.layout, unit=Unit(pools=pools)))
    chosen, which = choose(replace(plans, best=staged, mixed=staged))
    assert not chosen.whole.has_pp
    assert which == "the best plan that baton up can run; the best of all needs pipeline parallelism"
    with pytest.raises(InputError, match="all plans need pipeline parallelism"):
        choose(replace(plans, best=staged, mixed=staged, disaggregated=staged, runnable=None))
