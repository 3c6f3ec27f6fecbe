"""Requests moved about under load: the first two hundred of ten thousand (`make soak`)."""

import asyncio

import pytest

from tests.soak.migrations import soak

pytestmark = pytest.mark.integration


def test_two_hundred_migrations_under_load_change_no_output_and_leave_nothing_behind() -> None:
    report = asyncio.run(soak(200, seed=1))
    assert report.num_migrations >= 200
    assert report.num_outputs > 0
