"""Policies, by the name that the YAML gives them."""

from collections.abc import Callable

from router.policies.drain import DrainOnly
from router.policies.interface import Decision, DispatchPolicy, Forecast, InstanceView, KnowsNothing, RequestView
from router.policies.least_loaded import LeastLoaded
from router.policies.least_time import LeastTime
from router.policies.load_balance import LoadBalance
from router.policies.rescheduling import InstanceLoad, Move, RequestLoad, ReschedulingConfig, ReschedulingPolicy

DISPATCH_POLICIES: dict[str, type[DispatchPolicy]] = {"least_time": LeastTime, "least_loaded": LeastLoaded}
RESCHEDULING_POLICIES: dict[str, Callable[[ReschedulingConfig], ReschedulingPolicy]] = {
    "none": DrainOnly,
    "load_balance": LoadBalance,
}

__all__ = [
    "DISPATCH_POLICIES",
    "RESCHEDULING_POLICIES",
    "Decision",
    "DispatchPolicy",
    "DrainOnly",
    "Forecast",
    "InstanceLoad",
    "InstanceView",
    "KnowsNothing",
    "LeastLoaded",
    "LeastTime",
    "LoadBalance",
    "Move",
    "RequestLoad",
    "RequestView",
    "ReschedulingConfig",
    "ReschedulingPolicy",
]
