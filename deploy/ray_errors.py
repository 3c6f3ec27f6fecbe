"""What Ray raises, in one line for people."""

from ray.exceptions import RayActorError, RayError, RayTaskError

from deploy.errors import describe, first_line


def explain(error: RayError) -> str:
    """What the code in the process raised, or how the process ended."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return describe(error.cause)
    if isinstance(error, RayActorError):
        return f"its process is gone ({first_line(error)})"
    return first_line(error)
