"""Dispatch policies, by the name that the YAML gives them."""

from router.policies.interface import Decision, DispatchPolicy, InstanceView, RequestView
from router.policies.least_loaded import LeastLoaded

DISPATCH_POLICIES: dict[str, type[DispatchPolicy]] = {"least_loaded": LeastLoaded}

__all__ = ["DISPATCH_POLICIES", "Decision", "DispatchPolicy", "InstanceView", "LeastLoaded", "RequestView"]
