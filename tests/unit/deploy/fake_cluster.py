"""A cluster without processes, and a clock that tests move."""

import asyncio

from cluster.instance.config import InstanceConfig, InstanceInfo
from cluster.spec.deployment import Deployment
from cluster.topology.topology import Node
from deploy.controller import Controller
from deploy.errors import MemberFailed
from router.config import RouterInfo


class FakeMember:
    """A process that starts when it is told to, and dies when it is told to."""

    def __init__(self, info, *, error=None):
        self.info, self.error = info, error
        self.death = asyncio.get_running_loop().create_future()
        self.instances = []
        self.stopped = self.killed = False

    async def start(self):
        if self.error:
            raise MemberFailed(self.error)
        return self.info

    async def progress(self):
        return "loading"

    async def set_instances(self, infos):
        self.instances.append(sorted((info.name, info.incarnation) for info in infos))

    async def until_gone(self):
        raise MemberFailed(await self.death)

    async def stop(self):
        self.stopped = True

    def kill(self):
        if not self.killed:
            self.was_stopped_before_killed = self.stopped
        self.killed = True
        if not self.death.done():
            self.death.set_result("its process is gone")


class FakeRouter(FakeMember):
    """Does what operators ask for; `calls` is what. `live_links` are those that the test has set."""

    def __init__(self, info, cluster, *, error=None):
        super().__init__(info, error=error)
        self.cluster = cluster

    async def live_links(self):
        return self.cluster.live

    async def roles(self):
        return dict(self.cluster.roles)

    async def drain(self, instance):
        await self._do("drain", instance)

    async def undo_drain(self, instance):
        await self._do("undo_drain", instance)

    async def flip(self, instance, role):
        await self._do("flip", instance, role)

    async def _do(self, *call):
        self.cluster.calls.append(call)
        if refusal := self.cluster.refusals.get(call) or self.cluster.refusals.get(call[:2]):
            raise MemberFailed(refusal)


class FakeCluster:
    """`errors`: what goes wrong with the first life of a member.

    `network`: (nodes, survey) where there are several nodes. `calls`: what the router was asked for; `live`: what it
    believes of links now, and `roles` of instances; `refusals`: what it refuses. `places`: the node of each instance,
    as reserved; `configs`: what its latest life was made with.
    """

    def __init__(self, network=None, **errors):
        self.errors = errors
        self.lives = {}
        self.router_configs = []
        self.configs = {}
        self.alive, self.found = network or ([Node(name="here")], None)
        self.live, self.roles = None, {}
        self.calls, self.refusals, self.places, self.left, self.full = [], {}, {}, {}, set()

    async def nodes(self):
        return list(self.alive)

    async def survey(self, nodes, budget_s, say):
        say("probing links: round 1 of 1")
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    async def reserve(self, target, node):
        if node in self.full:
            raise MemberFailed(f"Ray has not given it a place on {node}")
        self.left[target.name] = self.places.get(target.name)
        self.places[target.name] = node

    def release(self, target, node):
        assert self.places[target.name] == node
        self.places[target.name] = self.left[target.name]

    def create_instance(self, target):
        life = len(self.lives.get(target.name, ()))
        self.configs[target.name] = target.config
        info = make_info(target.config, incarnation=life)
        return self._add(target.name, FakeMember(info, error=self._error(target.name)))

    def create_router(self, config):
        self.router_configs.append(config)
        info = RouterInfo(name="router", term=config.term, grpc_address="g:1", http_address="h:2", pid=1)
        return self._add("router", FakeRouter(info, self, error=self._error("router")))

    def _error(self, name):
        return self.errors.pop(name.replace("-", "_"), None)

    def _add(self, name, member):
        self.lives.setdefault(name, []).append(member)
        return member

    def __getitem__(self, name):
        return self.lives[name][-1]

    def all_lives(self):
        return [member for lives in self.lives.values() for member in lives]


class FakeTime:
    """`sleep` ends when the test moves the clock."""

    def __init__(self):
        self.now_s = 0.0
        self.sleepers = []

    def clock(self):
        return self.now_s

    async def sleep(self, delay_s):
        woken = asyncio.get_running_loop().create_future()
        self.sleepers.append((self.now_s + delay_s, woken))
        await woken

    def is_awaited(self, delay_s):
        """Somebody sleeps who wakes when the clock moves so far."""
        return any(not woken.done() and until_s <= self.now_s + delay_s for until_s, woken in self.sleepers)

    def advance(self, delay_s):
        self.now_s += delay_s
        for until_s, woken in self.sleepers:
            if until_s <= self.now_s and not woken.done():
                woken.set_result(None)


def make_info(config: InstanceConfig, incarnation: int) -> InstanceInfo:
    return InstanceInfo(
        name=config.name,
        incarnation=incarnation,
        role=config.role,
        address="a:1",
        link_address="a:2",
        pid=1,
        num_blocks=10,
        block_size=16,
        max_model_len=100,
        max_num_seqs=8,
        saturation_tokens=64,
    )


def make_deployment(**spec) -> Deployment:
    pools = [{"name": "p", "role": "prefill"}, {"name": "d", "role": "decode", "replicas": 2}]
    document = {"apiVersion": "baton/v1", "kind": "Deployment", "metadata": {"name": "test"}}
    return Deployment.model_validate({**document, "spec": {"model": {"path": "/model"}, "pools": pools, **spec}})


def make_controller(cluster, time=None, deployment=None):
    time = time or FakeTime()
    terms = iter(range(1, 100))
    deployment = deployment or make_deployment()
    return Controller(deployment, cluster, draw_term=lambda: next(terms), clock=time.clock, sleep=time.sleep)


async def settle():
    """Lets everything run that can run without time passing."""
    for _ in range(30):
        await asyncio.sleep(0)
