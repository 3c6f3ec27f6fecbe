"""The router as its fronts and its instances see it, without a network in between."""

import asyncio
from typing import Any

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.handshake import draw_secret
from cluster.instance.config import InstanceInfo
from cluster.messages import (
    Dispatch,
    Epoch,
    FrontMessage,
    Held,
    Holder,
    SequenceState,
    StepUpdate,
    Stop,
    TokenUpdate,
)
from cluster.role import InstanceRole
from router.backend import AdmittedRequest, TokenDelta, TokenStream
from router.config import RouterConfig
from router.errors import CannotResume, DuplicateRequest, InstanceLost, NoInstance, RequestAborted, UnknownRequest
from router.ledger import Note, Step
from router.observer import RouterObserver
from router.router import Router
from router.stream_store import Timer

pytestmark = pytest.mark.unit

M = InstanceRole.MIXED


class Wire:
    """In the place of a connection: keeps what the instance is told."""

    def __init__(self, info: InstanceInfo) -> None:
        self.info, self.holder = info, Holder(info.name, info.incarnation)
        self.said: list[FrontMessage] = []
        self.is_told_to_stop = asyncio.Event()

    def send(self, message: FrontMessage) -> None:
        self.said.append(message)
        if isinstance(message, Stop):
            self.is_told_to_stop.set()

    async def close(self) -> None:
        pass

    @property
    def dispatch(self) -> Dispatch:
        """The last one."""
        return [message for message in self.said if isinstance(message, Dispatch)][-1]


class Case(RouterObserver):
    """A router, and instances that say what the test makes them say."""

    def __init__(self, **config: Any) -> None:
        fields = {"name": "router", "deployment": "test", "model_name": "tiny", "model_path": "", "term": 8}
        self.router = Router(RouterConfig(**fields, secret=draw_secret(), **config))
        self.notes: list[Note] = []
        self.router.observe(self)

    def on_note(self, note: Note) -> None:
        self.notes.append(note)

    def meet(self, name: str, role: InstanceRole = M) -> Wire:
        """The router is connected to an instance, which has not said yet what it holds."""
        wire = Wire(make_info(name, role))
        self.router.instances.connections[wire.holder] = wire  # type: ignore[assignment]
        self.router.instances.on_joined(wire.info)
        return wire

    def join(self, name: str, role: InstanceRole = M, *held: Held) -> Wire:
        wire = self.meet(name, role)
        self.router.instances.on_holdings(wire.holder, held)
        return wire

    async def begin(self, *wires: Wire) -> None:
        """These are all the instances there are."""
        await self.router.set_instances([wire.info for wire in wires])

    def say(self, wire: Wire, start: int, *token_ids: int, finish: FinishReason | None = None) -> None:
        """Tokens of what was last dispatched there."""
        self.say_of(wire, wire.dispatch.state.request_id, wire.dispatch.epoch, start, *token_ids, finish=finish)

    def say_of(
        self,
        wire: Wire,
        request_id: str,
        epoch: Epoch,
        start: int,
        *token_ids: int,
        finish: FinishReason | None = None,
    ) -> None:
        update = TokenUpdate(
            request_id=request_id, epoch=epoch, start_index=start, token_ids=token_ids, finish_reason=finish
        )
        self.router.instances.on_message(wire.holder, StepUpdate(updates=(update,)))


async def make_case(*names: str, **config: Any) -> tuple[Case, list[Wire]]:
    """With mixed instances, and nothing left by an earlier life."""
    case = Case(**config)
    wires = [case.join(name) for name in names or ("m0",)]
    await case.begin(*wires)
    return case, wires


def make_info(name: str, role: InstanceRole) -> InstanceInfo:
    return InstanceInfo(
        name=name,
        incarnation=1,
        role=role,
        address="",
        link_address="",
        pid=0,
        num_blocks=64,
        block_size=16,
        max_model_len=512,
        max_num_seqs=8,
        saturation_tokens=128,
    )


def make_request(request_id: str = "r", **changes: Any) -> AdmittedRequest:
    fields: dict[str, Any] = {"sampling_params": SamplingParams(), "deadline_s": None, "priority": 0}
    return AdmittedRequest(request_id=request_id, prompt_token_ids=(1, 2, 3), **{**fields, **changes})


def held(request_id: str, epoch: Epoch, *token_ids: int, **fields: Any) -> Held:
    state = SequenceState(
        request_id=request_id,
        front="router/7",
        prompt_token_ids=(1, 2, 3),
        output_token_ids=token_ids,
        sampling_params=SamplingParams(),
        arrival_time_s=0.0,
    )
    return Held(state=state, epoch=epoch, outranks=Epoch(0, 0), **fields)


def always(_: AdmittedRequest) -> bool:
    return True


async def read(stream: TokenStream) -> tuple[list[int], FinishReason | None]:
    """To the end."""
    deltas = [delta async for delta in stream]
    return [token for delta in deltas for token in delta.token_ids], deltas[-1].finish_reason


async def after(case: Case, delay_s: float) -> None:
    """When every timer of this delay that was started before has fired."""
    fired = asyncio.Event()
    case.router.requests.streams.start("another", Timer.GRACE, delay_s, lambda _: fired.set())
    await fired.wait()


async def next_of(stream: TokenStream) -> TokenDelta:
    return await anext(aiter(stream))


async def test_an_id_is_taken_until_its_request_ends() -> None:
    case, _ = await make_case()
    case.router.submit(make_request())
    with pytest.raises(DuplicateRequest):
        case.router.submit(make_request())
    assert case.router.abort("r")
    case.router.submit(make_request())


async def test_the_client_who_leaves_ends_its_request() -> None:
    case, (wire,) = await make_case()
    await case.router.submit(make_request()).aclose()
    assert not case.router.abort("r")
    assert isinstance(wire.said[-1], Stop)


async def test_closing_the_stream_of_a_request_that_has_ended_leaves_the_next_one_with_its_id_alone() -> None:
    case, _ = await make_case()
    stream = case.router.submit(make_request())
    case.router.abort("r")
    case.router.submit(make_request())
    await stream.aclose()
    assert case.router.abort("r")


# Recovery


async def test_a_request_of_a_lost_instance_goes_on_elsewhere_with_its_stream_open() -> None:
    case, (first, second) = await make_case("m0", "m1")
    stream = case.router.submit(make_request())
    case.say(first, 0, 10, 11)
    case.router.instances.on_lost(first.holder, "killed")
    assert second.dispatch.state.output_token_ids == (10, 11)
    case.say(second, 2, 12, finish=FinishReason.LENGTH)
    assert await read(stream) == ([10, 11, 12], FinishReason.LENGTH)
    assert [note.step for note in case.notes] == [
        Step.DISPATCHED,
        Step.RECOVERING,
        Step.DISPATCHED,
        Step.FINISHED,
    ]


async def test_a_lost_instance_weighs_nothing_and_the_new_one_all_tokens() -> None:
    case, (first, second) = await make_case("m0", "m1")
    case.router.submit(make_request())
    case.say(first, 0, 10, 11)
    case.router.instances.on_lost(first.holder, "killed")
    member = case.router._scheduler.member(second.holder)
    assert member is not None
    assert member.num_tokens == {"r": 5}


async def test_without_an_instance_it_waits_and_is_refused_when_none_comes_back() -> None:
    case, (wire,) = await make_case("m0", no_instance_timeout_s=0.01)
    stream = case.router.submit(make_request())
    case.router.instances.on_lost(wire.holder, "killed")
    with pytest.raises(NoInstance, match="has come back"):
        await read(stream)


async def test_a_long_outage_refuses_what_comes_new_at_once_until_it_is_over() -> None:
    case, (first,) = await make_case("m0", no_instance_timeout_s=0.01)
    case.router.instances.on_lost(first.holder, "killed")
    waiting = case.router.submit(make_request())
    with pytest.raises(NoInstance):
        await read(waiting)
    with pytest.raises(NoInstance, match="is there"):
        case.router.submit(make_request("new"))
    second = case.join("m1")
    case.router.submit(make_request("new"))
    assert second.dispatch.state.request_id == "new"


async def test_the_wait_for_an_instance_ends_when_one_is_there_and_begins_anew_with_the_next_outage() -> None:
    case, (first,) = await make_case("m0", no_instance_timeout_s=1.0)
    case.router.submit(make_request())
    case.router.instances.on_lost(first.holder, "killed")
    first_refusal_s = _refusal_s(case)
    second = case.join("m1")
    assert case.router.instances.outage._timer is None
    case.router.instances.on_lost(second.holder, "killed")
    assert _refusal_s(case) > first_refusal_s


async def test_a_request_that_comes_in_an_outage_does_not_lengthen_it() -> None:
    case, (first,) = await make_case("m0", no_instance_timeout_s=1.0)
    case.router.instances.on_lost(first.holder, "killed")
    refusal_s = _refusal_s(case)
    case.router.submit(make_request())
    assert _refusal_s(case) == refusal_s


def _refusal_s(case: Case) -> float:
    timer = case.router.instances.outage._timer
    assert timer is not None
    return timer.when()


async def test_a_request_that_took_every_instance_with_it_fails_with_the_reason() -> None:
    case, _ = await make_case("m0", "m1", "m2", "m3", "m4")
    stream = case.router.submit(make_request())
    for _ in range(4):
        (owner,) = [entry.owner for entry in case.router._ledger]
        assert owner is not None
        case.router.instances.on_lost(owner, "killed")
    with pytest.raises(InstanceLost, match="killed"):
        await read(stream)


class SlowWire(Wire):
    """Takes its time to close."""

    def __init__(self, info: InstanceInfo, may_close: asyncio.Event) -> None:
        super().__init__(info)
        self._may_close = may_close

    async def close(self) -> None:
        await self._may_close.wait()


async def test_instances_may_be_set_again_while_earlier_ones_are_still_closing() -> None:
    case, wires = await make_case("m0", "m1", "m2")
    may_close = asyncio.Event()
    for wire in wires[1:]:
        case.router.instances.connections[wire.holder] = SlowWire(wire.info, may_close)  # type: ignore[assignment]
    setting = [asyncio.create_task(case.begin(wires[0])) for _ in range(2)]
    await asyncio.sleep(0)
    await case.begin(*wires[:1])
    may_close.set()
    await asyncio.gather(*setting)
    assert case.router.instance_names == ["m0"]


async def test_what_several_instances_had_that_are_taken_out_goes_to_none_of_them() -> None:
    case, wires = await make_case("m0", "m1", "m2", "m3", "m4", "m5")
    case.router.submit(make_request())
    (owner,) = [wire for wire in wires if wire.said]
    heir = next(wire for wire in reversed(wires) if wire is not owner)
    await case.begin(heir)
    assert [wire.holder for wire in wires if wire.said] == [wire.holder for wire in wires if wire in (owner, heir)]
    assert heir.dispatch.state.request_id == "r"


async def test_a_router_that_stops_dispatches_nothing_more_and_stops_what_runs() -> None:
    case, (wire,) = await make_case("m0")
    streams = [case.router.submit(make_request(f"r{index}")) for index in range(20)]
    dispatched = [message.state.request_id for message in wire.said if isinstance(message, Dispatch)]
    assert len(dispatched) < len(streams)
    await case.router.close()
    assert [message.request_id for message in wire.said if isinstance(message, Stop)] == dispatched
    assert [message.state.request_id for message in wire.said if isinstance(message, Dispatch)] == dispatched
    for stream in streams:
        with pytest.raises(NoInstance, match="stopping"):
            await read(stream)
    with pytest.raises(NoInstance, match="stopping"):
        case.router.submit(make_request())


# Resuming


async def test_a_resumable_request_outlives_its_client_and_is_read_from_the_beginning() -> None:
    case, (wire,) = await make_case()
    first = case.router.submit(make_request(resumable=True))
    case.say(wire, 0, 10)
    await next_of(first)
    await first.aclose()
    case.say(wire, 1, 11)
    attached = await case.router.attach("r", always)
    case.say(wire, 2, 12, finish=FinishReason.STOP)
    assert attached.request.prompt_token_ids == (1, 2, 3)
    assert await read(attached.stream) == ([10, 11, 12], FinishReason.STOP)


async def test_a_client_that_does_not_come_back_in_time_is_given_up() -> None:
    case, (wire,) = await make_case(grace_s=0.01)
    await case.router.submit(make_request(resumable=True)).aclose()
    await wire.is_told_to_stop.wait()
    attached = await case.router.attach("r", always)
    with pytest.raises(RequestAborted):
        await read(attached.stream)


async def test_two_may_read_and_the_request_goes_on_while_one_does() -> None:
    case, (wire,) = await make_case()
    first = case.router.submit(make_request())
    second = (await case.router.attach("r", always)).stream
    case.say(wire, 0, 10)
    assert (await next_of(first)).token_ids == (await next_of(second)).token_ids == (10,)
    await first.aclose()
    case.say(wire, 1, 11, finish=FinishReason.STOP)
    assert await read(second) == ([11], FinishReason.STOP)


async def test_the_end_is_kept_for_a_client_that_comes_late_but_not_for_one_that_cannot_come() -> None:
    case, (wire,) = await make_case()
    for request_id in ("resumable", "plain"):
        case.router.submit(make_request(request_id, resumable=request_id == "resumable"))
        case.say(wire, 0, 10, finish=FinishReason.LENGTH)
    assert await read((await case.router.attach("resumable", always)).stream) == ([10], FinishReason.LENGTH)
    with pytest.raises(UnknownRequest):
        await case.router.attach("plain", always)


async def test_what_has_ended_is_forgotten_after_its_time() -> None:
    case, (wire,) = await make_case(retention_s=0.01)
    case.router.submit(make_request(resumable=True))
    case.say(wire, 0, 10, finish=FinishReason.LENGTH)
    await after(case, 0.01)
    with pytest.raises(UnknownRequest):
        await case.router.attach("r", always)


async def test_a_client_that_has_all_it_wants_ends_the_request_for_all() -> None:
    case, (wire,) = await make_case()
    reader = case.router.submit(make_request(resumable=True))
    case.say(wire, 0, 10)
    await next_of(reader)
    reader.finish()
    assert isinstance(wire.said[-1], Stop)
    late = (await case.router.attach("r", always)).stream
    assert await read(late) == ([10], None)  # as far as it was wanted


async def test_the_tokens_of_another_request_that_had_this_id_are_nobodys() -> None:
    case, (wire,) = await make_case()
    case.router.submit(make_request(resumable=True))
    with pytest.raises(CannotResume, match="another request"):
        await case.router.attach("r", lambda request: request.prompt_token_ids == (4,))
    case.say(wire, 0, 10, finish=FinishReason.LENGTH)
    with pytest.raises(UnknownRequest):
        await case.router.attach("r", lambda request: request.prompt_token_ids == (4,))
    await case.router.attach("r", lambda request: request.prompt_token_ids == (1, 2, 3))


# Adoption


async def test_nothing_is_dispatched_before_every_instance_has_said_what_it_holds() -> None:
    case = Case()
    first, second = case.meet("m0"), case.meet("m1")
    await case.begin(first, second)
    case.router.submit(make_request())
    case.router.instances.on_holdings(first.holder, ())
    assert first.said == []
    assert not case.router.is_ready
    case.router.instances.on_holdings(second.holder, ())
    assert first.dispatch.state.request_id == "r"
    assert case.router.is_ready


async def test_what_an_earlier_life_left_goes_on_for_the_client_that_attaches() -> None:
    case = Case()
    wire = case.meet("m0")
    attaching = asyncio.create_task(case.router.attach("r", always))
    await case.begin(wire)
    case.router.instances.on_holdings(wire.holder, (held("r", Epoch(7, 1), 10, 11),))
    attached = await attaching
    assert attached.request.prompt_token_ids == (1, 2, 3)
    case.say_of(wire, "r", Epoch(7, 1), 2, 12, finish=FinishReason.STOP)
    assert await read(attached.stream) == ([10, 11, 12], FinishReason.STOP)
    member = case.router._scheduler.member(wire.holder)
    assert member is not None
    assert member.num_tokens == {}


async def test_what_is_said_while_others_are_waited_for_is_not_lost() -> None:
    case = Case()
    first, second = case.meet("m0"), case.meet("m1")
    await case.begin(first, second)
    case.router.instances.on_holdings(first.holder, (held("r", Epoch(7, 1), 10),))
    case.say_of(first, "r", Epoch(7, 1), 1, 11, finish=FinishReason.STOP)
    assert first.said == []
    case.router.instances.on_holdings(second.holder, ())
    assert await read((await case.router.attach("r", always)).stream) == ([10, 11], FinishReason.STOP)


async def test_an_abort_that_comes_before_the_adoption_is_over_is_honoured() -> None:
    case = Case()
    wire = case.meet("m0")
    await case.begin(wire)
    case.router.submit(make_request("sent-again"))
    for request_id in ("left", "sent-again", "unknown"):
        case.router.abort(request_id)
    case.router.instances.on_holdings(wire.holder, (held("left", Epoch(7, 1), 10),))
    assert wire.said == [Stop(request_id="left", epoch=Epoch(7, 1))]


async def test_an_id_that_was_aborted_and_sent_again_before_the_adoption_is_over_runs() -> None:
    case = Case()
    wire = case.meet("m0")
    await case.begin(wire)
    case.router.submit(make_request())
    case.router.abort("r")
    stream = case.router.submit(make_request())
    case.router.instances.on_holdings(wire.holder, ())
    case.say(wire, 0, 10, finish=FinishReason.LENGTH)
    assert await read(stream) == ([10], FinishReason.LENGTH)


async def test_an_instance_that_stays_silent_is_not_waited_for_and_is_stopped_when_it_comes() -> None:
    case = Case(suspect_after_s=0.01)
    first, second = case.meet("m0"), case.meet("m1")
    await case.begin(first, second)
    case.router.instances.on_holdings(first.holder, ())
    with pytest.raises(UnknownRequest):
        await case.router.attach("r", always)
    case.router.instances.on_holdings(second.holder, (held("r", Epoch(7, 1), 10),))
    assert second.said == [Stop(request_id="r", epoch=Epoch(7, 1))]


async def test_the_requests_of_one_that_is_lost_after_its_report_are_recovered_from_it() -> None:
    case = Case()
    first, second = case.meet("m0"), case.meet("m1")
    await case.begin(first, second)
    case.router.instances.on_holdings(first.holder, (held("r", Epoch(7, 1), 10, 11),))
    case.router.instances.on_lost(first.holder, "killed")
    case.router.instances.on_holdings(second.holder, ())
    assert second.dispatch.state.output_token_ids == (10, 11)
    assert second.dispatch.epoch > Epoch(7, 1)


async def test_what_an_earlier_life_left_is_refused_in_time_where_nobody_is_left_to_go_on_with_it() -> None:
    case = Case(no_instance_timeout_s=0.01, suspect_after_s=0.03)
    first, second = case.meet("m0"), case.meet("m1")
    await case.begin(first, second)
    case.router.instances.on_holdings(first.holder, (held("r", Epoch(7, 1), 10, 11),))
    case.router.instances.on_lost(first.holder, "killed")
    case.router.instances.on_lost(second.holder, "silent")
    await case.router.instances.has_adopted.wait()
    attached = await case.router.attach("r", always)
    with pytest.raises(NoInstance, match="has come back"):
        await read(attached.stream)


async def test_an_adopted_request_whose_client_does_not_come_is_given_up() -> None:
    case = Case(grace_s=0.01)
    wire = case.meet("m0")
    await case.begin(wire)
    case.router.instances.on_holdings(wire.holder, (held("r", Epoch(7, 1), 10),))
    await wire.is_told_to_stop.wait()
    assert wire.said == [Stop(request_id="r", epoch=Epoch(7, 1))]


async def test_a_router_that_is_never_told_of_instances_refuses_in_time() -> None:
    case = Case(no_instance_timeout_s=0.01)
    stream = case.router.submit(make_request())
    with pytest.raises(NoInstance):
        await case.router.attach("r", always)
    with pytest.raises(NoInstance):
        await read(stream)


async def test_a_request_waits_for_the_first_instance_there_is() -> None:
    case = Case(no_instance_timeout_s=5.0)
    await case.router.set_instances([])
    case.router.submit(make_request())
    await case.router.set_instances([make_info("m0", M)])
    case.router.instances.on_joined(make_info("m0", M))
    case.router.instances.on_holdings(Holder("m0", 1), ())
    assert [note.step for note in case.notes] == [Step.DISPATCHED]
    await case.router.close()
