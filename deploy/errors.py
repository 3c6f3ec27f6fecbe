"""What goes wrong with a command, for people: every text is one line."""


class DeployError(Exception):
    """The command failed, and nothing that it started is left."""


class MemberFailed(DeployError):
    """An instance or the router did not start, or is gone; the text says why."""


class InputError(DeployError):
    """The command was given something it cannot work with."""
