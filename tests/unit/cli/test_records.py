import os
import subprocess
import sys

import pytest

from deploy.errors import DeployError
from deploy.records import Record, find_record, records, remove_record, start_ticks, write_record

pytestmark = pytest.mark.unit


@pytest.fixture(autouse=True)
def _folder(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))


def make_record(name="mine", **changes):
    pid = os.getpid()
    fields = {"name": name, "grpc_address": "g:1", "http_address": "h:2", "ray_address": "r:3", "pid": pid}
    return Record(**{**fields, "started": start_ticks(pid), **changes})


def test_what_is_written_is_found_by_name_and_as_the_only_one():
    write_record(record := make_record())
    assert find_record("mine") == find_record(None) == record
    assert find_record("other") is None


def test_what_is_removed_is_not_found():
    write_record(make_record())
    remove_record("mine")
    remove_record("mine")
    assert records() == []


def test_one_of_several_has_to_be_named():
    write_record(make_record("a"))
    write_record(make_record("b"))
    with pytest.raises(DeployError, match="several deployments run: a, b; name one"):
        find_record(None)


def test_a_process_that_has_ended_is_forgotten():
    ended = subprocess.Popen([sys.executable, "-c", ""])
    started = start_ticks(ended.pid)
    ended.wait()
    write_record(make_record(pid=ended.pid, started=started))
    assert records() == []


def test_a_later_process_of_the_same_number_is_not_mistaken_for_it():
    write_record(make_record(started=1))
    assert records() == []


def test_a_detached_one_is_not_this_machines_to_judge():
    write_record(record := make_record(pid=None, started=None))
    assert records() == [record]
