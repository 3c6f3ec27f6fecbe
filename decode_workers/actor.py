"""The Ray actor of the decode pool, and of instances with both roles."""

from cluster.instance.actor import InstanceActor


class DecodeActor(InstanceActor):
    """Named so that `ray list actors` tells the pools apart; what it does is its role's policy."""
