"""What Ray raises, in one line for people."""

from typing import Any

from ray.exceptions import RayActorError, RayError, RayTaskError

from deploy.errors import MemberFailed, describe, first_line


async def call(actor: Any, method: str, *arguments: object) -> Any:
    """What it answers; Ray's errors become MemberFailed."""
    try:
        return await getattr(actor, method).remote(*arguments)
    except RayError as error:
        raise MemberFailed(explain(error)) from error


def explain(error: RayError) -> str:
    """What the code in the process raised, or how the process ended."""
    if isinstance(error, RayTaskError) and isinstance(error.cause, Exception):
        return describe(error.cause)
    if isinstance(error, RayActorError):
        return f"its process is gone ({first_line(error)})"
    return first_line(error)
