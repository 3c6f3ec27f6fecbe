"""What people wrote into a file."""

from pathlib import Path

from cluster.spec.problem import Problem, SpecError


def read_text(file: Path) -> str:
    """SpecError when it cannot be read, or is not UTF-8."""
    try:
        return file.read_bytes().decode()
    except OSError as error:
        raise SpecError(str(file), [Problem(path=(), message=f"cannot be read: {error.strerror}")]) from error
    except UnicodeDecodeError as error:
        raise SpecError(str(file), [Problem(path=(), message=f"is not UTF-8: {error.reason}")]) from error
