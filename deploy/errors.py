"""What goes wrong with a command, for people: every text is one line."""


class DeployError(Exception):
    """The command failed, and nothing that it started is left."""


class MemberFailed(DeployError):
    """An instance or the router did not start, or is gone; the text says why."""


class InputError(DeployError):
    """The command was given something it cannot work with."""


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(error: BaseException) -> str:
    """In one line; with its kind where it was not written for people."""
    return first_line(error) if isinstance(error, DeployError) else f"{type(error).__name__}: {first_line(error)}"
