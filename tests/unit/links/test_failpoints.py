import pytest

from cluster import failpoints

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def disarmed(monkeypatch):
    monkeypatch.setattr(failpoints, "_armed", {})


def test_nothing_happens_where_nothing_is_armed():
    failpoints.hit("here", bytearray(1))


def test_an_armed_place_does_what_it_is_told_until_it_is_disarmed():
    record = bytearray(1)
    with failpoints.armed("here", failpoints.flip):
        failpoints.hit("there", record)
        assert record == b"\x00"
        failpoints.hit("here", record)
    failpoints.hit("here", record)
    assert record == b"\xff"


def test_a_child_is_armed_through_its_environment():
    failpoints.arm_from_environment("a=flip,b=cut,c=stall:0")
    record = bytearray(1)
    failpoints.hit("a", record)
    failpoints.hit("c", record)
    assert record == b"\xff"
    with pytest.raises(ConnectionAbortedError):
        failpoints.hit("b")


@pytest.mark.parametrize("value", ["a", "a=", "a=explode", "a=stall", "a=flip:1", "a=flip@", "a=flip@x"])
def test_a_misspelt_environment_is_an_error(value):
    with pytest.raises(ValueError, match="BATON_FAILPOINTS"):
        failpoints.arm_from_environment(value)


def test_a_place_can_be_armed_for_one_of_many_visits():
    failpoints.arm_from_environment("a=flip@2")
    record = bytearray(1)
    damaged = []
    for _ in range(4):
        failpoints.hit("a", record)
        damaged.append(record[0] != 0)
    assert damaged == [False, True, True, True]
