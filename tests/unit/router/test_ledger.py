"""Laws 1 to 5, as the ledger keeps them."""

import pytest

from cluster.engine.sampling_params import SamplingParams
from cluster.engine.sequence import FinishReason
from cluster.messages import (
    AckActivated,
    AckFinished,
    Activated,
    CloseGrant,
    Dispatch,
    Epoch,
    GrantRefused,
    Holder,
    PassedOn,
    SequenceState,
    Stop,
    TokenUpdate,
    WantTokens,
)
from router.ledger import Deliver, DuplicateEntry, Fail, Failure, Instruction, Ledger, Place, Tell

pytestmark = pytest.mark.unit

P = Holder("prefill-0", 1)
D = Holder("decode-0", 1)
STRANGER = Holder("decode-0", 99)


def place(holder: Holder) -> Place:
    return Place(holder, f"{holder.instance}:1", f"{holder.instance}:2")


def make_state(request_id: str = "r") -> SequenceState:
    return SequenceState(
        request_id=request_id,
        front="front",
        prompt_token_ids=(1, 2, 3),
        sampling_params=SamplingParams(),
        arrival_time_s=0.0,
    )


def tokens(epoch: Epoch, start: int, *token_ids: int, finish: FinishReason | None = None) -> TokenUpdate:
    return TokenUpdate(request_id="r", epoch=epoch, start_index=start, token_ids=token_ids, finish_reason=finish)


def delivered(instructions: list[Instruction]) -> list[int]:
    return [token for item in instructions if isinstance(item, Deliver) for token in item.token_ids]


def told(instructions: list[Instruction], holder: Holder) -> list[object]:
    return [item.message for item in instructions if isinstance(item, Tell) and item.holder == holder]


class Case:
    """A ledger with one request, dispatched to P with a grant for D."""

    def __init__(self) -> None:
        self.ledger = Ledger(term=7)
        self.ledger.admit(make_state())
        (tell,) = self.ledger.dispatch("r", place(P), place(D), number=1)
        assert isinstance(tell, Tell)
        assert isinstance(tell.message, Dispatch)
        assert tell.message.grant is not None
        self.owner_epoch = tell.message.epoch
        self.grant_epoch = tell.message.grant.epoch


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


def test_a_lost_owner_ends_its_requests_and_stops_the_receiver(case: Case) -> None:
    out = case.ledger.on_instance_lost(P, "killed")
    assert out[0] == Fail(request_id="r", failure=Failure.INSTANCE_LOST, reason="prefill-0: killed")
    assert told(out, D) == [Stop(request_id="r", epoch=case.grant_epoch)]
    assert len(case.ledger) == 0


def test_a_lost_receiver_only_closes_the_grant(case: Case) -> None:
    out = case.ledger.on_instance_lost(D, "killed")
    assert told(out, P) == [CloseGrant(request_id="r", epoch=case.grant_epoch)]
    assert delivered(case.ledger.on_tokens(P, tokens(case.owner_epoch, 0, 10))) == [10]


def test_a_later_life_of_a_lost_instance_has_no_say(case: Case) -> None:
    assert case.ledger.on_instance_lost(STRANGER, "killed") == []
    assert "r" in case.ledger


def test_a_request_that_was_passed_to_a_dead_instance_is_lost_and_an_older_one_of_that_id_is_not_meant(
    case: Case,
) -> None:
    case.ledger.on_instance_lost(D, "killed")
    older = PassedOn(request_id="r", epoch=Epoch(6, 1))
    assert case.ledger.on_passed_on(P, older) == []
    (fail, *_) = case.ledger.on_passed_on(P, PassedOn(request_id="r", epoch=case.grant_epoch))
    assert isinstance(fail, Fail)
    assert fail.failure is Failure.INSTANCE_LOST


@pytest.mark.parametrize("dispatched", [False, True])
def test_an_abort_is_honoured_in_every_state(dispatched: bool) -> None:
    ledger = Ledger(term=1)
    ledger.admit(make_state())
    if dispatched:
        ledger.dispatch("r", place(P), place(D), number=1)
    out = ledger.fail("r", Failure.ABORTED, "aborted")
    assert [type(item) for item in out] == [Fail, Tell, Tell][: 3 if dispatched else 1]
    assert len(ledger) == 0
    assert ledger.fail("r", Failure.ABORTED, "again") == []
