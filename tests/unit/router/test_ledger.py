"""Laws 1 to 8, as the ledger keeps them."""

from typing import Any

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    DispatchRefused,
    Epoch,
    GrantRefused,
    HandOver,
    Held,
    Holder,
    PassedOn,
    SequenceState,
    Stop,
    TokenUpdate,
    WantTokens,
)
from router.ledger import (
    MAX_RECOVERIES,
    Adopt,
    CannotMove,
    Deliver,
    DuplicateEntry,
    Fail,
    Failure,
    Instruction,
    Ledger,
    Note,
    Place,
    Requeue,
    Step,
    Tell,
)

pytestmark = pytest.mark.unit

P = Holder("prefill-0", 1)
D = Holder("decode-0", 1)
E = Holder("decode-1", 1)
STRANGER = Holder("decode-0", 99)
BEFORE_ALL = Epoch(0, 0)


def place(holder: Holder) -> Place:
    return Place(holder, f"{holder.instance}:1", f"{holder.instance}:2")


def make_state(request_id: str = "r", **changes: Any) -> SequenceState:
    fields: dict[str, Any] = {
        "request_id": request_id,
        "front": "front",
        "prompt_token_ids": (1, 2, 3),
        "sampling_params": SamplingParams(),
        "arrival_time_s": 0.0,
    }
    return SequenceState(**{**fields, **changes})


def tokens(epoch: Epoch, start: int, *token_ids: int, finish: FinishReason | None = None) -> TokenUpdate:
    return TokenUpdate(request_id="r", epoch=epoch, start_index=start, token_ids=token_ids, finish_reason=finish)


def delivered(instructions: list[Instruction]) -> list[int]:
    return [token for item in instructions if isinstance(item, Deliver) for token in item.token_ids]


def told(instructions: list[Instruction], holder: Holder) -> list[object]:
    return [item.message for item in instructions if isinstance(item, Tell) and item.holder == holder]


def steps(instructions: list[Instruction]) -> list[Step]:
    return [item.step for item in instructions if isinstance(item, Note)]


def done(instructions: list[Instruction]) -> list[Instruction]:
    """What is not only a note."""
    return [item for item in instructions if not isinstance(item, Note)]


def dispatch_in(instructions: list[Instruction]) -> Dispatch:
    (dispatch,) = [item.message for item in instructions if isinstance(item, Tell)]
    assert isinstance(dispatch, Dispatch)
    return dispatch


class Case:
    """A ledger with one request, dispatched to P with a grant for D."""

    def __init__(self, **params: Any) -> None:
        self.ledger = Ledger(term=7)
        self.ledger.admit(make_state(sampling_params=SamplingParams(**params)))
        dispatch = dispatch_in(self.ledger.dispatch("r", place(P), place(D), number=1))
        assert dispatch.grant is not None
        self.owner_epoch = dispatch.epoch
        self.grant_epoch = dispatch.grant.epoch

    def dispatch_again(self, to: Holder = E) -> Dispatch:
        return dispatch_in(self.ledger.dispatch("r", place(to), None, number=2))


@pytest.fixture
def case() -> Case:
    return Case()


def test_epochs_are_minted_once_and_only_grow(case: Case) -> None:
    assert Epoch(7, 0) < case.owner_epoch < case.grant_epoch


def test_a_request_id_can_be_under_way_only_once(case: Case) -> None:
    with pytest.raises(DuplicateEntry):
        case.ledger.admit(make_state())


def test_the_owner_tokens_are_delivered_once_and_in_order(case: Case) -> None:
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == [10]
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == []
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10, 11))) == [11]


def test_an_early_token_is_dropped_and_the_next_index_named(case: Case) -> None:
    out = case.ledger.on_tokens(P, tokens(case.owner_epoch, 2, 12))
    assert delivered(out) == []
    assert told(out, P) == [WantTokens(request_id="r", epoch=case.owner_epoch, next_index=0)]


def test_a_token_from_the_grants_holder_commits_the_grant(case: Case) -> None:
    assert delivered(case.ledger.on_tokens(D, tokens(case.grant_epoch, 0, 10, 11))) == [10, 11]
    late = case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))
    assert delivered(late) == []
    assert told(late, P) == [Stop(request_id="r", epoch=case.owner_epoch)]


def test_activated_commits_the_grant_and_is_acknowledged_each_time(case: Case) -> None:
    activated = Activated(request_id="r", epoch=case.grant_epoch)
    for _ in range(2):
        out = case.ledger.on_activated(D, activated)
        assert told(out, D) == [AckActivated(request_id="r", epoch=case.grant_epoch)]
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == []


@pytest.mark.parametrize("holder", [STRANGER, Holder("decode-1", 1)])
def test_nobody_else_is_believed_whatever_epoch_it_names(case: Case, holder: Holder) -> None:
    for epoch in (case.owner_epoch, case.grant_epoch, Epoch(9, 9)):
        assert delivered(case.ledger.on_tokens(holder, tokens(epoch, 0, 66))) == []
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == [10]


def test_a_closed_grant_fences_its_holder_off_and_the_owner_goes_on(case: Case) -> None:
    out = case.ledger.on_grant_refused(GrantRefused(request_id="r", epoch=case.grant_epoch, reason="full"))
    assert told(out, P) == [CloseGrant(request_id="r", epoch=case.grant_epoch)]
    assert delivered(case.ledger.on_tokens(D, tokens(case.grant_epoch, 0, 66))) == []
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == [10]


def test_a_refusal_of_a_committed_grant_is_old_news(case: Case) -> None:
    case.ledger.on_activated(D, Activated(request_id="r", epoch=case.grant_epoch))
    assert case.ledger.on_grant_refused(GrantRefused(request_id="r", epoch=case.grant_epoch, reason="late")) == []


def test_the_last_token_ends_the_entry_and_stops_whoever_else_held_it(case: Case) -> None:
    out = case.ledger.on_tokens(D, tokens(case.grant_epoch, 0, 10, 11, finish=FinishReason.STOP))
    assert delivered(out) == [10, 11]
    assert told(out, D) == [AckFinished(request_id="r", epoch=case.grant_epoch)]
    assert told(out, P) == [Stop(request_id="r", epoch=case.owner_epoch)]
    assert len(case.ledger) == 0


def test_what_is_said_after_the_end_is_answered_with_stop(case: Case) -> None:
    case.ledger.finish("r")
    out = case.ledger.on_tokens(D, tokens(case.grant_epoch, 0, 10))
    assert out == [Tell(D, Stop(request_id="r", epoch=case.grant_epoch))]


def test_a_lost_owner_s_request_waits_again_and_the_receiver_is_stopped(case: Case) -> None:
    out = case.ledger.on_instance_lost(P, "killed")
    assert done(out) == [
        Tell(D, Stop(request_id="r", epoch=case.grant_epoch)),
        Requeue(request_id="r", num_tokens=3),
    ]
    assert steps(out) == [Step.RECOVERING]
    case.ledger.check_integrity()


def test_recovery_dispatches_with_all_tokens_at_an_epoch_above_all_that_were_given(case: Case) -> None:
    case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10, 11))
    out = case.ledger.on_instance_lost(P, "killed")
    assert Requeue(request_id="r", num_tokens=5) in out
    dispatch = case.dispatch_again()
    assert dispatch.state.output_token_ids == (10, 11)
    assert dispatch.epoch > case.grant_epoch > case.owner_epoch


def test_a_request_that_its_holder_had_no_memory_for_waits_again(case: Case) -> None:
    refused = DispatchRefused(request_id="r", epoch=case.owner_epoch, reason="out of memory", may_run_elsewhere=True)
    assert case.ledger.on_dispatch_refused(STRANGER, refused) == []
    out = case.ledger.on_dispatch_refused(P, refused)
    assert [type(each) for each in out if isinstance(each, Requeue | Fail)] == [Requeue]
    assert case.ledger.on_dispatch_refused(P, refused) == []


def test_what_the_lost_ones_say_later_is_not_believed(case: Case) -> None:
    case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))
    case.ledger.on_instance_lost(P, "silent")
    for recovered in (False, True):
        if recovered:
            epoch = case.dispatch_again().epoch
        assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10, 66))) == []
        assert delivered(case.ledger.on_tokens(D, tokens(case.grant_epoch, 0, 10, 66))) == []
        assert told(case.ledger.on_activated(D, Activated(request_id="r", epoch=case.grant_epoch)), D) == [
            Stop(request_id="r", epoch=case.grant_epoch)
        ]
    assert delivered(case.ledger.on_tokens(E, tokens(epoch, 0, 10, 11))) == [11]


@pytest.mark.parametrize(
    ("params", "reason"), [({"max_tokens": 2}, FinishReason.LENGTH), ({"stop_token_ids": {11}}, FinishReason.STOP)]
)
def test_a_request_whose_tokens_are_all_here_ends_well_instead_of_running_again(
    params: dict[str, Any], reason: FinishReason
) -> None:
    case = Case(**params)
    case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10, 11))
    out = case.ledger.on_instance_lost(P, "killed")
    (end,) = [item for item in out if isinstance(item, Deliver)]
    assert (end.start_index, end.token_ids, end.finish_reason) == (2, (), reason)
    assert told(out, D) == [Stop(request_id="r", epoch=case.grant_epoch)]
    assert steps(out) == [Step.RECOVERING, Step.FINISHED]
    assert len(case.ledger) == 0


def test_a_request_that_took_many_instances_with_it_is_given_to_no_other(case: Case) -> None:
    lost = P
    for _ in range(MAX_RECOVERIES):
        assert steps(case.ledger.on_instance_lost(lost, "killed")) == [Step.RECOVERING]
        case.dispatch_again(E)
        lost = E
    out = case.ledger.on_instance_lost(E, "killed")
    assert done(out) == [Fail(request_id="r", failure=Failure.INSTANCE_LOST, reason="decode-1: killed")]
    assert len(case.ledger) == 0


def test_a_lost_receiver_only_closes_the_grant(case: Case) -> None:
    out = case.ledger.on_instance_lost(D, "killed")
    assert told(out, P) == [CloseGrant(request_id="r", epoch=case.grant_epoch)]
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == [10]


def test_a_later_life_of_a_lost_instance_has_no_say(case: Case) -> None:
    assert case.ledger.on_instance_lost(STRANGER, "killed") == []
    assert "r" in case.ledger


def test_a_request_that_was_passed_to_a_dead_instance_runs_again_and_an_older_one_of_that_id_is_not_meant(
    case: Case,
) -> None:
    case.ledger.on_instance_lost(D, "killed")
    older = PassedOn(request_id="r", epoch=Epoch(6, 1))
    assert case.ledger.on_passed_on(P, older) == []
    out = case.ledger.on_passed_on(P, PassedOn(request_id="r", epoch=case.grant_epoch))
    assert [it.reason for it in out if isinstance(it, Note)] == [
        "prefill-0 had just passed it to an instance that was lost"
    ]
    assert done(out) == [Requeue(request_id="r", num_tokens=3)]


@pytest.mark.parametrize("dispatched", [False, True])
def test_an_abort_is_honoured_in_every_state(dispatched: bool) -> None:
    ledger = Ledger(term=1)
    ledger.admit(make_state())
    if dispatched:
        ledger.dispatch("r", place(P), place(D), number=1)
    out = ledger.fail("r", Failure.ABORTED, "aborted")
    assert [type(item) for item in done(out)] == [Fail, Tell, Tell][: 3 if dispatched else 1]
    assert steps(out) == [Step.FAILED]
    assert len(ledger) == 0
    assert ledger.fail("r", Failure.ABORTED, "again") == []


def test_an_abort_while_it_waits_to_run_again_ends_it(case: Case) -> None:
    case.ledger.on_instance_lost(P, "killed")
    assert done(case.ledger.fail("r", Failure.ABORTED, "aborted")) == [
        Fail(request_id="r", failure=Failure.ABORTED, reason="aborted")
    ]
    assert len(case.ledger) == 0


# Handing over


class Running(Case):
    """Without an open grant: it decodes in D, and has two tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.ledger.on_tokens(D, tokens(self.grant_epoch, 0, 10, 11))

    def move(self) -> HandOver:
        (hand_over,) = told(self.ledger.hand_over("r", place(E), "balance"), D)
        assert isinstance(hand_over, HandOver)
        return hand_over


def test_a_running_request_is_handed_over_by_its_owner_at_a_new_epoch() -> None:
    case = Running()
    out = case.ledger.hand_over("r", place(E), "balance")
    (hand_over,) = told(out, D)
    assert isinstance(hand_over, HandOver)
    assert hand_over.epoch == case.grant_epoch
    assert (hand_over.grant.receiver, hand_over.grant.address) == (E, "decode-1:1")
    assert hand_over.grant.epoch > case.grant_epoch
    assert out[-1] == Note(request_id="r", step=Step.GRANTED, holder=D, peer=E, reason="balance", num_output_tokens=2)
    assert case.ledger.sole_holder("r") is None


def test_the_source_s_tokens_count_until_the_receiver_speaks() -> None:
    case = Running()
    grant = case.move().grant
    assert delivered(case.ledger.on_tokens(D, tokens(case.grant_epoch, 2, 12))) == [12]
    out = case.ledger.on_tokens(E, tokens(grant.epoch, 3, 13))
    assert delivered(out) == [13]
    passed = Note(request_id="r", step=Step.PASSED, holder=E, peer=D, reason="balance", num_output_tokens=3)
    assert passed in out
    assert delivered(case.ledger.on_tokens(D, tokens(case.grant_epoch, 4, 14))) == []


@pytest.mark.parametrize(
    ("state", "to", "why"),
    [
        ("unknown", E, "unknown or over"),
        ("queued", E, "waits to be dispatched"),
        ("granted", E, "being handed over to decode-0 already"),
        ("running", D, "is in decode-0 already"),
    ],
)
def test_what_cannot_be_handed_over_is_refused_with_the_reason_and_nothing_changes(
    state: str, to: Holder, why: str
) -> None:
    ledger = {"granted": Case, "running": Running}[state]().ledger if state in ("granted", "running") else Ledger(7)
    if state == "queued":
        ledger.admit(make_state())
    before = [(entry.owner, entry.epoch, entry.grant, dict(entry.holders)) for entry in ledger]
    with pytest.raises(CannotMove, match=why):
        ledger.hand_over("r", place(to), "migrate")
    assert [(entry.owner, entry.epoch, entry.grant, dict(entry.holders)) for entry in ledger] == before


def test_a_refused_handover_leaves_the_request_where_it_was_and_it_can_be_tried_again() -> None:
    case = Running()
    grant = case.move().grant
    out = case.ledger.on_grant_refused(GrantRefused(request_id="r", epoch=grant.epoch, reason="full"))
    assert Note(request_id="r", step=Step.KEPT, holder=D, peer=E, reason="full", num_output_tokens=2) in out
    assert delivered(case.ledger.on_tokens(E, tokens(grant.epoch, 2, 66))) == []
    assert case.move().grant.epoch > grant.epoch


# What an earlier life left


def held(epoch: Epoch, *token_ids: int, outranks: Epoch = BEFORE_ALL, **fields: Any) -> Held:
    return Held(
        state=make_state(output_token_ids=token_ids, front="router/7"), epoch=epoch, outranks=outranks, **fields
    )


def adopted_by(out: list[Instruction]) -> Holder:
    (adopt,) = [item for item in out if isinstance(item, Adopt)]
    assert adopt.state.front == "router/8"
    assert adopt.state.output_token_ids == ()
    return adopt.holder


def adopt(**reports: tuple[Held, ...]) -> tuple[Ledger, list[Instruction]]:
    ledger = Ledger(term=8)
    names = {"p": P, "d": D, "e": E}
    out = ledger.adopt({names[name]: held_here for name, held_here in reports.items()}, "router/8")
    ledger.check_integrity()
    return ledger, out


def test_what_an_instance_runs_goes_on_there_with_its_tokens_delivered() -> None:
    ledger, out = adopt(d=(held(Epoch(7, 2), 10, 11),))
    assert adopted_by(out) == D
    assert delivered(out) == [10, 11]
    assert steps(out) == [Step.ADOPTED]
    assert delivered(ledger.on_tokens(D, tokens(Epoch(7, 2), 1, 11, 12))) == [12]


def test_the_highest_epoch_is_adopted_and_the_others_are_stopped() -> None:
    ledger, out = adopt(p=(held(Epoch(7, 1), 10, 11, 12),), d=(held(Epoch(7, 2), 10),))
    assert adopted_by(out) == D
    assert told(out, P) == [Stop(request_id="r", epoch=Epoch(7, 1))]
    assert delivered(ledger.on_tokens(P, tokens(Epoch(7, 1), 1, 11))) == []


def test_a_source_that_ran_on_is_adopted_before_the_holder_of_that_very_grant() -> None:
    """The grant was closed: what its holder computes was never heard, and may be less than the client has."""
    ledger, _ = adopt(p=(held(Epoch(7, 1), 10, outranks=Epoch(7, 2)),), d=(held(Epoch(7, 2), 10, 11),))
    assert ledger.sole_holder("r") == P


def test_who_outranks_an_epoch_is_adopted_before_its_holder() -> None:
    """Every later grant was refused to P, or closed: whoever had one cannot hold the request now."""
    _, out = adopt(p=(held(Epoch(7, 1), 10, outranks=Epoch(7, 3)),), d=(held(Epoch(7, 2), 10),))
    assert adopted_by(out) == P
    assert told(out, D) == [Stop(request_id="r", epoch=Epoch(7, 2))]


def test_of_equal_epochs_the_longest_history_is_adopted() -> None:
    _, out = adopt(d=(held(Epoch(7, 2), 10),), e=(held(Epoch(7, 2), 10, 11),))
    assert adopted_by(out) == E


def test_an_open_handover_is_closed() -> None:
    _, out = adopt(d=(held(Epoch(7, 2), 10, grant_epoch=Epoch(7, 3)),))
    assert told(out, D) == [CloseGrant(request_id="r", epoch=Epoch(7, 3))]


def test_what_had_ended_is_delivered_with_its_end_and_acknowledged() -> None:
    ledger, out = adopt(d=(held(Epoch(7, 2), 10, 11, finish_reason=FinishReason.LENGTH),))
    (deliver,) = [item for item in out if isinstance(item, Deliver)]
    assert (deliver.token_ids, deliver.finish_reason) == ((10, 11), FinishReason.LENGTH)
    assert told(out, D) == [AckFinished(request_id="r", epoch=Epoch(7, 2))]
    assert len(ledger) == 0


def test_a_request_that_was_sent_again_before_the_adoption_starts_anew() -> None:
    ledger = Ledger(term=8)
    ledger.admit(make_state())
    out = ledger.adopt({D: (held(Epoch(7, 2), 10),)}, "router/8")
    assert out == [Tell(D, Stop(request_id="r", epoch=Epoch(7, 2)))]


def test_an_adopted_request_whose_holder_is_lost_recovers_above_its_epoch() -> None:
    ledger, _ = adopt(d=(held(Epoch(7, 2), 10, 11),))
    assert Requeue(request_id="r", num_tokens=5) in ledger.on_instance_lost(D, "killed")
    dispatch = dispatch_in(ledger.dispatch("r", place(E), None, number=1))
    assert dispatch.epoch > Epoch(7, 2)
    assert dispatch.state.output_token_ids == (10, 11)


def test_who_comes_later_keeps_only_what_is_its_own_by_this_ledger() -> None:
    ledger, _ = adopt(d=(held(Epoch(7, 2), 10),))
    mine, late = held(Epoch(7, 2), 10), held(Epoch(7, 1), 10)
    assert ledger.on_holdings(D, (mine,)) == []
    assert ledger.on_holdings(P, (late,)) == [Tell(P, Stop(request_id="r", epoch=Epoch(7, 1)))]
