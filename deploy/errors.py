"""What goes wrong while deploying, for people: every text is one line."""


class DeployError(Exception):
    """The command failed, nothing it started is left."""


class MemberFailed(DeployError):
    """An instance or the router did not start, or is gone; the text says why."""
