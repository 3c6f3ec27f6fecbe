"""Links drift while a deployment runs: what the controller says, and what it does where it may."""

import asyncio
import shutil

import pytest

from cluster.role import InstanceRole
from deploy.events import EventKind
from router.links.live_links import LiveLinks
from tests.unit.deploy.fake_cluster import FakeTime
from tests.unit.deploy.test_placing import deployment, make_cluster, make_topology, texts, up, wait_for

pytestmark = pytest.mark.unit

__all__ = ["deployment"]
INTERVAL_S = 20.0


class Running:
    """A deployment that is up, and checks its placement when the test says so."""

    def __init__(self, cluster, controller, time):
        self.cluster, self.controller, self.time = cluster, controller, time

    async def check(self, number=1):
        for _ in range(number):
            self.time.advance(INTERVAL_S)
            await wait_for(self.is_waiting)

    def is_waiting(self):
        """For the next check."""
        return any(
            until_s == self.time.now_s + INTERVAL_S and not woken.done() for until_s, woken in self.time.sleepers
        )

    async def said(self):
        return [text for text in await texts(self.controller) if "links have changed" in text]


@pytest.fixture
async def run(deployment):
    started = []

    async def run(replace, names="abcd", *, pools=None, **network):
        spec = {
            "placement": {"replace": replace, "check_interval_s": INTERVAL_S},
            **({"pools": pools} if pools else {}),
        }
        time, cluster = FakeTime(), make_cluster(names, **network)
        controller = await up(cluster, deployment(**spec), time)
        started.append(controller)
        running = Running(cluster, controller, time)
        if replace != "off":
            await wait_for(running.is_waiting)
        return running

    yield run
    for controller in started:
        await controller.stop()


async def test_a_link_that_stays_slow_is_told_of_once_and_nothing_moves(run):
    running = await run("warn", slow="b")
    places = dict(running.cluster.places)
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow=places["d-0"]))
    await running.check(2)
    assert await running.said() == [], "it may be a bad minute"
    await running.check(3)
    (said,) = await running.said()
    now, _, then = said.partition(", and would take 1.67 ms: d-0 moves from ")
    assert now == "links have changed: KV takes 79.5 ms from prefill to decode"
    assert then[0] == places["d-0"]
    assert running.cluster.places == places
    assert running.cluster.calls == []


async def test_told_again_when_it_drifts_again(run):
    running = await run("warn", names="abcd", slow="b")
    slow = LiveLinks(topology=make_topology("abcd", slow=running.cluster.places["d-0"]))
    for _ in range(2):
        running.cluster.live = slow
        await running.check(3)
        running.cluster.live = LiveLinks(topology=make_topology("abcd", slow="b"))
        await running.check(1)
    assert len(await running.said()) == 2


async def test_where_it_is_off_nobody_looks(run):
    running = await run("off")
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow="abc"))
    running.time.advance(1000.0)
    assert not running.is_waiting()


async def test_a_decode_instance_moves_away_from_a_slow_node_drained_and_then_let_in_again(run):
    running = await run("apply")
    cluster, home = running.cluster, running.cluster.places["d-0"]
    (free,) = set("abcd") - set(cluster.places.values())
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=home))
    await running.check(2)
    assert cluster.calls == []
    running.time.advance(INTERVAL_S)
    await wait_for(lambda: ("drain", "d-0") in cluster.calls)
    await wait_for(lambda: cluster.places["d-0"] == free)
    await wait_for(lambda: cluster.lives["d-0"][0].killed)
    assert cluster.lives["d-0"][0].was_stopped_before_killed
    await wait_for(lambda: running.controller._observed["d-0"].life.name == "GONE")
    await wait_for(lambda: running.time.is_awaited(0.5))
    running.time.advance(0.5)
    await wait_for(lambda: ("undo_drain", "d-0") in cluster.calls)
    assert cluster.calls == [("drain", "d-0"), ("undo_drain", "d-0")]
    assert len(cluster.lives["d-0"]) == 2
    await wait_for(running.is_waiting)
    said = await texts(running.controller)
    assert said[-2].endswith(f": d-0 moves from {home} to {free}")
    assert said[-1].startswith("done; ")
    gone = [event.text for event in await running.controller.events(0) if event.kind is EventKind.GONE]
    assert gone == [f"moves to {free}; made again in 0.5 s"]
    await running.check(4)
    assert len(cluster.calls) == 2, "it has arrived"


ALIKE = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", "replicas": 2}]


async def test_two_exchange_their_roles_where_only_a_flip_gets_there(run):
    running = await run("apply", "abc", pools=ALIKE)
    cluster, home = running.cluster, running.cluster.places["p-0"]
    other = cluster.places["d-0"]
    cluster.live = LiveLinks(topology=make_topology("abc", sources=other))
    await running.check(3)
    assert cluster.calls == [("flip", "d-0", "prefill"), ("flip", "p-0", "decode")]
    assert len(cluster.lives["p-0"]) == len(cluster.lives["d-0"]) == 1, "no process ends for it"
    await running.check(4)
    assert len(cluster.calls) == 2
    cluster["p-0"].death.set_result("killed")
    await wait_for(lambda: running.controller._observed["p-0"].life.name == "GONE")
    await wait_for(lambda: running.time.is_awaited(0.5))
    running.time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["p-0"]) == 2)
    assert cluster["p-0"].info.role.value == "decode", "its next life goes on as what it has become"
    assert cluster.places["p-0"] == home


async def test_half_an_exchange_is_undone(run):
    running = await run("apply", "abc", pools=ALIKE)
    cluster, other = running.cluster, running.cluster.places["d-0"]
    cluster.live = LiveLinks(topology=make_topology("abc", sources=other))
    cluster.refusals["flip", "p-0"] = "p-0 was not empty within 600 s"
    await running.check(3)
    assert cluster.calls == [
        ("flip", "d-0", "prefill"),
        ("flip", "p-0", "decode"),
        ("undo_drain", "p-0"),
        ("flip", "d-0", "decode"),
    ]
    assert {name: seat.pool for name, seat in running.controller._placing.seats.items()} == {
        "p-0": "p",
        "d-0": "d",
        "d-1": "d",
    }
    assert (await texts(running.controller))[-1].endswith("did not come off: p-0 was not empty within 600 s")


async def test_what_cannot_be_undone_at_once_is_undone_by_the_next_check(run):
    running = await run("apply", "abc", pools=ALIKE)
    cluster, other = running.cluster, running.cluster.places["d-0"]
    cluster.live = LiveLinks(topology=make_topology("abc", sources=other))
    cluster.refusals["flip", "p-0"] = "p-0 was not empty within 600 s"
    cluster.refusals["flip", "d-0", "decode"] = "d-0 does not answer now"
    await running.check(3)
    assert running.controller._placing.seats["d-0"].pool == "p"
    del cluster.refusals["flip", "d-0", "decode"]
    await running.check(1)
    assert running.controller._placing.seats["d-0"].pool == "d"


async def test_a_flip_that_came_off_although_the_router_gave_up_on_it_counts(run):
    running = await run("apply", "abc", pools=ALIKE)
    cluster, other = running.cluster, running.cluster.places["d-0"]
    cluster.live = LiveLinks(topology=make_topology("abc", sources=other))
    cluster.refusals["flip", "p-0"] = "p-0 has not taken the role yet; it is told again when it comes back"
    flip = cluster["router"].flip

    async def flip_late(instance, role):
        cluster.roles[instance] = InstanceRole(role)
        await flip(instance, role)

    cluster["router"].flip = flip_late
    await running.check(3)
    assert {name: seat.pool for name, seat in running.controller._placing.seats.items()}["p-0"] == "d"
    assert ("flip", "d-0", "decode") not in cluster.calls
    assert ("undo_drain", "p-0") in cluster.calls


async def test_what_an_operator_has_flipped_is_not_looked_at_as_what_it_was(run):
    running = await run("warn", "abc", pools=ALIKE)
    cluster, seats = running.cluster, running.controller._placing.seats
    cluster.roles = {"p-0": InstanceRole.PREFILL, "d-0": InstanceRole.PREFILL, "d-1": InstanceRole.DECODE}
    cluster.live = LiveLinks(topology=make_topology("abc", sources=cluster.places["d-0"] + cluster.places["p-0"]))
    await running.check(3)
    assert {name: seat.pool for name, seat in seats.items()} == {"p-0": "p", "d-0": "p", "d-1": "d"}
    assert await running.said() == [], "with two that prefill, this is the best there is"
    cluster["d-0"].death.set_result("killed")
    await wait_for(lambda: running.controller._observed["d-0"].life.name == "GONE")
    await wait_for(lambda: running.time.is_awaited(0.5))
    running.time.advance(0.5)
    await wait_for(lambda: len(cluster.lives["d-0"]) == 2)
    assert cluster["d-0"].info.role is InstanceRole.PREFILL


async def test_another_that_cannot_start_does_not_make_a_move_fail(run):
    running = await run("apply")
    cluster, home = running.cluster, running.cluster.places["d-0"]
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=home))
    await running.check(2)
    running.time.advance(INTERVAL_S)
    await wait_for(lambda: running.controller._observed["d-0"].life.name == "GONE")
    cluster["d-1"].death.set_result("killed")
    await wait_for(lambda: running.controller._observed["d-1"].life.name == "GONE")
    cluster.errors["d_1"] = "out of memory"
    await wait_for(lambda: running.time.is_awaited(0.5))
    running.time.advance(0.5)
    await wait_for(lambda: ("undo_drain", "d-0") in cluster.calls)
    await wait_for(running.is_waiting)
    assert running.controller._observed["d-1"].life.name == "GONE"
    assert (await texts(running.controller))[-1].startswith("done; ")


async def test_a_router_that_does_not_answer_is_asked_again_by_the_next_check(run, monkeypatch):
    monkeypatch.setattr("deploy.controller._CALL_TIMEOUT_S", 0.01)
    running = await run("warn", slow="b")
    router = running.cluster["router"]
    router.live_links = asyncio.Event().wait
    await running.check(2)
    del router.live_links
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow=running.cluster.places["d-0"]))
    await running.check(3)
    assert len(await running.said()) == 1


async def test_the_last_of_its_kind_stays_and_that_is_said(run):
    pools = [
        {"name": "p", "role": "prefill"},
        {"name": "d", "role": "decode", "replicas": 2, "engine": {"max_num_seqs": 7}},
    ]
    running = await run("apply", pools=pools)
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow=running.cluster.places["p-0"]))
    await running.check(5)
    assert running.cluster.calls == []
    (said,) = await running.said()
    assert said.endswith("in another placement: no step gets there (p-0 cannot be spared)")


async def test_a_refused_drain_changes_nothing_and_is_told(run):
    running = await run("apply")
    cluster, places = running.cluster, dict(running.cluster.places)
    cluster.refusals["drain", "d-0"] = "d-0 is the last that can decode: no other could take its work"
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=places["d-0"]))
    await running.check(3)
    assert cluster.places == places
    assert not cluster["d-0"].killed
    said = await texts(running.controller)
    assert "did not come off: d-0 is the last that can decode" in said[-1]


async def test_what_fails_is_tried_again_after_ever_longer_pauses(run):
    running = await run("apply")
    cluster = running.cluster
    cluster.refusals |= dict.fromkeys([("drain", "d-0"), ("drain", "d-1")], "it was not empty within 600 s")
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=cluster.places["d-0"]))
    tried = []
    for number in range(3, 20):
        await running.check(1 if number > 3 else 3)
        if ("drain", "d-0") in cluster.calls:
            tried.append(number)
        cluster.calls.clear()
    assert tried == [3, 5, 9, 17]
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=cluster.places["d-1"]))
    await running.check(1)
    assert ("drain", "d-1") in cluster.calls, "another step is another matter"


async def test_each_step_goes_by_the_links_as_they_are_when_its_turn_comes(run):
    pools = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", "replicas": 3}]
    running = await run("apply", "abcdef", pools=pools)
    cluster, homes = running.cluster, dict(running.cluster.places)
    slow = homes["d-0"] + homes["d-1"]
    cluster.live = LiveLinks(topology=make_topology("abcdef", slow=slow))
    await running.check(2)
    running.time.advance(INTERVAL_S)
    await wait_for(lambda: cluster.places != homes)
    (first,) = [name for name in homes if cluster.places[name] != homes[name]]
    await wait_for(lambda: running.controller._observed[first].life.name == "GONE")
    cluster.live = LiveLinks(topology=make_topology("abcdef", slow=homes[first]))
    await wait_for(lambda: running.time.is_awaited(0.5))
    running.time.advance(0.5)
    await wait_for(running.is_waiting)
    assert len([call for call in cluster.calls if call[0] == "drain"]) == 1
    await running.check(3)
    assert len([call for call in cluster.calls if call[0] == "drain"]) == 1, "the other's node has recovered"


async def test_the_rest_of_a_way_needs_no_three_checks(run):
    pools = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", "replicas": 3}]
    running = await run("apply", "abcdef", pools=pools)
    cluster, homes = running.cluster, dict(running.cluster.places)
    cluster.live = LiveLinks(topology=make_topology("abcdef", slow=homes["d-0"] + homes["d-1"]))
    await running.check(2)
    for number in (1, 2):
        running.time.advance(INTERVAL_S)
        await wait_for(lambda: any(seen.life.name == "GONE" for seen in running.controller._observed.values()))
        await wait_for(lambda: running.time.is_awaited(0.5))
        running.time.advance(0.5)
        await wait_for(running.is_waiting)
        assert sum(cluster.places[name] != homes[name] for name in homes) == number
    assert (await texts(running.controller))[-1].startswith("done; ")


async def test_a_node_that_ray_does_not_give_leaves_it_where_it_is_and_undrained(run):
    running = await run("apply")
    cluster, home = running.cluster, running.cluster.places["d-0"]
    cluster.full = set("abcd") - set(cluster.places.values())
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=home))
    await running.check(3)
    assert cluster.calls == [], "nobody leaves before there is a place"
    assert not cluster["d-0"].killed
    assert cluster.places["d-0"] == running.controller._placing.seats["d-0"].node == home


async def test_a_link_that_broke_counts_as_none(run):
    running = await run("warn")
    places, links = running.cluster.places, make_topology("abcd")
    running.cluster.live = LiveLinks(topology=links, broken=frozenset({(places["p-0"], places["d-0"])}))
    await running.check(3)
    (said,) = await running.said()
    assert "d-0 moves from" in said


async def test_what_nobody_foresaw_is_told_and_the_next_check_comes(run):
    running = await run("warn", slow="b")
    places = running.cluster.places
    running.cluster.live = "no links at all"
    await running.check(2)
    said = [text for text in await texts(running.controller) if "could not be checked" in text]
    assert said == ["the placement could not be checked: AttributeError: 'str' object has no attribute 'topology'"]
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow=places["d-0"]))
    await running.check(3)
    assert len(await running.said()) == 1


async def test_the_checkpoint_is_not_needed_once_it_runs(run, tmp_path):
    running = await run("warn", slow="b")
    shutil.rmtree(tmp_path / "model")
    running.cluster.live = LiveLinks(topology=make_topology("abcd", slow=running.cluster.places["d-0"]))
    await running.check(3)
    assert len(await running.said()) == 1


async def test_stop_while_an_instance_moves_is_the_end(run):
    running = await run("apply")
    cluster = running.cluster
    cluster.live = LiveLinks(topology=make_topology("abcd", slow=cluster.places["d-0"]))
    await running.check(2)
    running.time.advance(INTERVAL_S)
    await wait_for(lambda: running.controller._observed["d-0"].life.name == "GONE")
    await running.controller.stop()
    await wait_for(lambda: not running.controller._tasks)
    assert len(cluster.lives["d-0"]) == 1


async def test_a_pool_that_operators_have_left_nobody_in_is_not_planned_for(run):
    pools = [{"name": "p", "role": "prefill"}, {"name": "m", "role": "mixed", "replicas": 2}]
    running = await run("warn", "abc", pools=pools)
    running.cluster.roles = {"p-0": InstanceRole.MIXED}
    running.cluster.live = LiveLinks(topology=make_topology("abc", slow=running.cluster.places["p-0"]))
    await running.check(3)
    assert {seat.pool for seat in running.controller._placing.seats.values()} == {"m"}
    assert [text for text in await texts(running.controller) if "could not be checked" in text] == []
