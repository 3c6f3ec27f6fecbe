import fcntl
import os

import pytest

from cluster.links.host_identity import host_identity
from cluster.links.kv_region import KvRegion
from cluster.links.shared_region import SharedRegion, map_peer_region

pytestmark = pytest.mark.unit


@pytest.fixture
def region():
    region = SharedRegion.create(8192)
    yield region
    region.close()


def test_a_region_is_seen_by_who_maps_it_and_not_writable_there(region):
    mapped = map_peer_region(region.path, 8192)
    region.buffer[5000] = 42
    assert mapped[5000] == 42
    with pytest.raises(TypeError):
        mapped[0] = 1


def test_a_region_never_changes_its_size(region):
    fd = int(region.path.rsplit("/", 1)[1])
    for num_bytes in (4096, 16384):
        with pytest.raises(PermissionError):
            os.ftruncate(fd, num_bytes)


def test_a_region_of_another_size_is_not_mapped(region):
    with pytest.raises(OSError, match="has 8192 bytes, not the 4096"):
        map_peer_region(region.path, 4096)


@pytest.mark.parametrize("path", ["/etc/passwd", "/proc/1/../self/fd/3", "", "/proc/self/fd/3"])
def test_only_regions_of_processes_are_mapped(path):
    with pytest.raises(OSError, match="is not a region of another process"):
        map_peer_region(path, 4096)


def test_what_could_shrink_under_the_reader_is_not_mapped():
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(OSError, match="not sealed"):
        map_peer_region(f"/proc/{os.getpid()}/fd/{fd}", 4096)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW)
    map_peer_region(f"/proc/{os.getpid()}/fd/{fd}", 4096).close()
    os.close(fd)


def test_a_closed_region_is_mapped_no_more_but_stays_for_who_holds_it():
    region = SharedRegion.create(4096)
    view = KvRegion(region.buffer, 4096).records
    region.close()
    region.close()
    view[0][7] = 1
    with pytest.raises(OSError, match="fd"):
        map_peer_region(region.path, 4096)


def test_memory_that_is_not_whole_records_is_no_region():
    with pytest.raises(ValueError, match="100 bytes are not records of 64 bytes"):
        KvRegion(memoryview(bytearray(100)), 64)


def test_a_host_is_the_same_host_to_itself():
    assert host_identity() == host_identity()
    assert str(os.getuid()) in host_identity()
