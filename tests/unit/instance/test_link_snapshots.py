from dataclasses import replace

import pytest

from cluster.instance.link_snapshots import link_snapshots
from cluster.links.link_stats import LinkStatus
from cluster.snapshot import LinkSnapshot

pytestmark = pytest.mark.unit

PART = LinkStatus(
    source="a",
    target="b",
    source_rank=0,
    target_rank=0,
    transport="shm",
    note="",
    num_transfers=3,
    num_bytes=300,
    num_failures=0,
    last_failure="",
    alpha_s=1e-4,
    beta_bytes_per_s=2e9,
    num_connections=1,
)


def test_a_link_between_single_ranks_is_what_it_is():
    assert link_snapshots([PART]) == (
        LinkSnapshot(
            source="a",
            target="b",
            transport="shm",
            num_transfers=3,
            num_bytes=300,
            alpha_s=1e-4,
            beta_bytes_per_s=2e9,
            num_connections=1,
        ),
    )


def test_links_between_the_ranks_of_two_instances_are_one():
    slow = replace(PART, target_rank=1, num_bytes=200, beta_bytes_per_s=1e9, num_failures=1, last_failure="cut off")
    not_measured = replace(PART, source_rank=1, transport="tcp", num_bytes=0, num_transfers=0, beta_bytes_per_s=0.0)
    (link,) = link_snapshots([PART, slow, not_measured])
    assert (link.num_transfers, link.num_bytes, link.num_failures) == (3, 500, 1)
    assert (link.beta_bytes_per_s, link.transport, link.note) == (1e9, "shm, tcp", "cut off")


def test_each_other_instance_has_its_own():
    links = link_snapshots([PART, replace(PART, target="c"), replace(PART, target_rank=1)])
    assert [(link.target, link.num_bytes) for link in links] == [("b", 600), ("c", 300)]
