"""For how long requests come: idle time is simulated, too."""

from collections.abc import Sequence

from deploy.errors import InputError
from deploy.workload.request import WorkloadRequest

MAX_DAYS = 8  # a trace of a week; a day without a request takes a minute
_DAY_S = 86400.0


def check_span(requests: Sequence[WorkloadRequest]) -> None:
    """InputError: they come too slowly for all of them to be simulated."""
    days = (requests[-1].arrival_s or 0.0) / _DAY_S
    if not days <= MAX_DAYS:
        raise InputError(
            f"at this rate the {len(requests)} requests come within {days:,.0f} days; simulated are {MAX_DAYS} "
            "at most: give a higher rate, or fewer --requests"
        )
