import pytest

from cluster.engine.sequence import Sequence, SequenceStatus
from cluster.engine.waiting_queue import WaitingQueue
from tests.unit.engine.factories import make_sequence

pytestmark = pytest.mark.unit


def make_queue(*sequences: Sequence) -> WaitingQueue:
    queue = WaitingQueue()
    for number, sequence in enumerate(sequences):
        sequence.admission_number = number
        queue.push(sequence)
    return queue


def order(queue: WaitingQueue) -> str:
    ids = ""
    while sequence := queue.peek():
        queue.remove(sequence)
        ids += sequence.request_id
    return ids


def test_the_earliest_arrival_goes_first_and_the_earliest_admission_among_equals() -> None:
    times = {"a": 2.0, "b": 1.0, "c": 1.0}
    assert order(make_queue(*(make_sequence(name, arrival_time_s=time) for name, time in times.items()))) == "bca"


def test_a_higher_priority_overtakes_whatever_came_before() -> None:
    assert (
        order(make_queue(make_sequence("a"), make_sequence("b", priority=-1), make_sequence("c", priority=1))) == "cab"
    )


def test_the_preempted_go_first_within_their_priority_only() -> None:
    preempted = make_sequence("p", arrival_time_s=9.0)
    preempted.status = SequenceStatus.PREEMPTED
    assert order(make_queue(make_sequence("a"), preempted, make_sequence("h", priority=1))) == "hpa"


def test_what_is_removed_from_the_middle_never_comes_up_and_may_come_back() -> None:
    a, b, c = (make_sequence(name, arrival_time_s=index) for index, name in enumerate("abc"))
    queue = make_queue(a, b, c)
    queue.remove(b)
    assert b not in queue
    assert len(queue) == 2
    queue.push(b)
    assert order(queue) == "abc"


def test_an_id_that_comes_back_takes_its_new_place() -> None:
    a, b = make_sequence("a", priority=2), make_sequence("b", priority=1)
    queue = make_queue(a, b)
    queue.remove(a)
    queue.push(make_sequence("a", priority=0))
    assert order(queue) == "ba"


def test_the_tokens_of_the_waiting_are_counted() -> None:
    a, b = make_sequence("a", 5), make_sequence("b", 7)
    queue = make_queue(a, b)
    assert queue.num_tokens == 12
    queue.remove(a)
    assert queue.num_tokens == 7
