"""What Ray raises, in one line for people."""

from ray.exceptions import RayActorError, RayError, RayTaskError

from deploy.errors import MemberFailed


def explain(error: RayError) -> str:
    """What the code in the process raised, or how the process ended."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        known = isinstance(error.cause, MemberFailed)
        return first_line(error.cause) if known else f"{type(error.cause).__name__}: {first_line(error.cause)}"
    if isinstance(error, RayActorError):
        return f"its process is gone ({first_line(error)})"
    return first_line(error)


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
