"""Files that a command is to write when it is done: whether it can, before it does anything."""

import errno
import os
from pathlib import Path

from deploy.errors import InputError


def check_output(option: str, file: Path | None, suffix: str = "") -> None:
    """Makes its folder. InputError names the option: a directory, not to be written, another ending than `suffix`."""
    if file is None:
        return
    if suffix and file.suffix.lower() != suffix:
        raise InputError(f"{option} {file} should end in {suffix}")
    if file.is_dir():
        raise InputError(f"{option} {file} is a directory; a file is to be written")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{option} {file}: its folder cannot be made: {error.strerror}") from error
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InputError(f"{option} {file} cannot be written: {os.strerror(errno.EACCES)}")
