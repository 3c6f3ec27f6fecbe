"""The Ray actor of the prefill pool."""

from cluster.instance.actor import InstanceActor


class PrefillActor(InstanceActor):
    """Named so that `ray list actors` tells the pools apart; what it does is its role's policy."""
