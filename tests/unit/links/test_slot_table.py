import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from cluster.links.slot_table import Refusal, SlotTable
from cluster.messages import Epoch, Holder

pytestmark = pytest.mark.unit

EPOCH = Epoch(1, 1)
SOURCE = Holder("prefill-0", 3)


@pytest.fixture
def quiet() -> list[int]:
    return []


@pytest.fixture
def slots(quiet: list[int]) -> SlotTable:
    """Reservation 1: blocks [4, 8) of the sequence land in 10, 11, 12, 13."""
    slots = SlotTable(quiet.append)
    slots.open(1, SOURCE, EPOCH, (10, 11, 12, 13), first_block=4)
    return slots


def test_a_post_names_where_the_blocks_land(slots):
    assert slots.post(1, SOURCE, EPOCH, 5, 2) == (11, 12)


@pytest.mark.parametrize(
    ("reservation", "source", "epoch", "first_block", "count", "refusal"),
    [
        (2, SOURCE, EPOCH, 4, 1, Refusal.UNKNOWN_RESERVATION),
        (1, Holder("prefill-1", 3), EPOCH, 4, 1, Refusal.WRONG_SOURCE),
        (1, Holder("prefill-0", 2), EPOCH, 4, 1, Refusal.WRONG_SOURCE),
        (1, Holder("prefill-1", 3), Epoch(1, 2), 4, 1, Refusal.WRONG_SOURCE),
        (1, SOURCE, Epoch(1, 2), 4, 1, Refusal.WRONG_EPOCH),
        (1, SOURCE, Epoch(1, 0), 4, 1, Refusal.WRONG_EPOCH),
        (1, SOURCE, EPOCH, 3, 1, Refusal.OUT_OF_RANGE),
        (1, SOURCE, EPOCH, 7, 2, Refusal.OUT_OF_RANGE),
        (1, SOURCE, EPOCH, 4, 0, Refusal.OUT_OF_RANGE),
    ],
)
def test_what_was_not_reserved_is_refused(slots, reservation, source, epoch, first_block, count, refusal):
    assert slots.post(reservation, source, epoch, first_block, count) is refusal


def test_a_block_is_posted_once_and_arrives_once(slots):
    slots.post(1, SOURCE, EPOCH, 4, 2)
    assert slots.post(1, SOURCE, EPOCH, 5, 2) is Refusal.NOT_EMPTY
    assert slots.complete(1, 4, 2)
    assert slots.post(1, SOURCE, EPOCH, 4, 1) is Refusal.NOT_EMPTY
    assert slots.post(1, SOURCE, EPOCH, 6, 2) == (12, 13)


def test_blocks_of_a_failed_operation_can_be_posted_again(slots):
    slots.post(1, SOURCE, EPOCH, 4, 2)
    assert slots.abandon(1, 4, 2)
    assert slots.post(1, SOURCE, EPOCH, 4, 4) == (10, 11, 12, 13)


def test_a_quiet_reservation_closes_at_once(slots, quiet):
    slots.post(1, SOURCE, EPOCH, 4, 4)
    slots.complete(1, 4, 4)
    assert slots.close(1)
    assert slots.post(1, SOURCE, EPOCH, 4, 1) is Refusal.UNKNOWN_RESERVATION
    assert slots.close(1)
    assert slots.num_reservations == 0
    assert quiet == []


@pytest.mark.parametrize("end", [SlotTable.complete, SlotTable.abandon])
def test_a_closed_reservation_is_quarantined_until_its_last_operation_is_over(slots, quiet, end):
    slots.post(1, SOURCE, EPOCH, 4, 1)
    slots.post(1, SOURCE, EPOCH, 6, 2)
    assert not slots.close(1)
    assert slots.post(1, SOURCE, EPOCH, 5, 1) is Refusal.UNKNOWN_RESERVATION
    assert not slots.complete(1, 6, 2)
    assert quiet == []
    assert not end(slots, 1, 4, 1)
    assert quiet == [1]
    assert slots.num_reservations == 0


def test_a_reservation_is_not_opened_twice(slots):
    with pytest.raises(ValueError, match="reservation 1 is open"):
        slots.open(1, SOURCE, EPOCH, (14,), 0)


class SlotTableMachine(RuleBasedStateMachine):
    """Any order of events: no block is given out while it is posted, and every quarantine ends in one `on_quiet`."""

    open_reservations = Bundle("open_reservations")
    posted = Bundle("posted")

    def __init__(self) -> None:
        super().__init__()
        self.quiet: list[int] = []
        self.slots = SlotTable(self.quiet.append)
        self.minted = 0
        self.used_blocks: set[int] = set()  # written to at this moment
        self.pending_close: set[int] = set()

    @rule(target=open_reservations, count=st.integers(1, 6), first_block=st.integers(0, 3))
    def open(self, count, first_block):
        self.minted += 1
        self.slots.open(
            self.minted, SOURCE, Epoch(1, self.minted), range(self.minted * 10, self.minted * 10 + count), first_block
        )
        return self.minted

    @rule(target=posted, reservation=open_reservations, first_block=st.integers(0, 9), count=st.integers(1, 4))
    def post(self, reservation, first_block, count):
        block_ids = self.slots.post(reservation, SOURCE, Epoch(1, reservation), first_block, count)
        if isinstance(block_ids, Refusal):
            return multiple()
        assert reservation not in self.pending_close
        assert not self.used_blocks & set(block_ids)
        self.used_blocks |= set(block_ids)
        return reservation, first_block, count, block_ids

    @rule(operation=consumes(posted), arrived=st.booleans())
    def end(self, operation, arrived):
        reservation, first_block, count, block_ids = operation
        self.used_blocks -= set(block_ids)
        wanted = (self.slots.complete if arrived else self.slots.abandon)(reservation, first_block, count)
        assert wanted == (reservation not in self.pending_close)
        is_used = any(block_id // 10 == reservation for block_id in self.used_blocks)
        assert (reservation in self.quiet) == (not wanted and not is_used)

    @rule(reservation=consumes(open_reservations))
    def close(self, reservation):
        is_used = any(block_id // 10 == reservation for block_id in self.used_blocks)
        assert self.slots.close(reservation) == (not is_used)
        if is_used:
            self.pending_close.add(reservation)

    @invariant()
    def holds_together(self):
        self.slots.check_integrity()
        assert len(self.quiet) == len(set(self.quiet))


TestSlotTableMachine = SlotTableMachine.TestCase
TestSlotTableMachine.settings = settings(max_examples=60, stateful_step_count=30)
