"""What goes wrong has a status on both interfaces, and survives the way between processes."""

import pickle

import grpc
import pytest

from router.errors import (
    ERROR_STATUS,
    BatonError,
    DeadlineExceeded,
    DuplicateRequest,
    InvalidRequest,
    ModelNotFound,
    PortInUse,
    QueueFull,
    status_of,
)

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    "error",
    [InvalidRequest("top_p", "too big"), QueueFull(1.5), DuplicateRequest("r"), DeadlineExceeded(), PortInUse("h", 1)],
    ids=lambda error: type(error).__name__,
)
def test_an_error_is_the_same_after_pickling(error: BatonError) -> None:
    copy = pickle.loads(pickle.dumps(error))
    assert (type(copy), str(copy), vars(copy)) == (type(error), str(error), vars(error))


def test_every_status_is_one_that_grpc_knows() -> None:
    assert all(status.grpc in grpc.StatusCode.__members__ for status in ERROR_STATUS.values())


def test_the_nearest_type_decides_and_what_is_unknown_is_our_own_failure() -> None:
    assert status_of(ModelNotFound("model", "unknown")).http == 404
    assert status_of(BatonError("?")).http == status_of(KeyError("?")).http == 500
