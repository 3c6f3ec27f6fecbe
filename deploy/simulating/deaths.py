"""Deaths of instances, as they are typed."""

from deploy.errors import InputError
from deploy.simulator.cluster import Death


def parse_death(text: str) -> Death:
    """NAME:AT or NAME:AT:BACK, in seconds: when it dies, and after how long its next life serves. InputError."""
    name, *numbers = text.split(":")
    try:
        times_s = [float(number) for number in numbers]
    except ValueError:
        times_s = []
    if not name or len(times_s) not in (1, 2) or not all(0.0 <= time_s < float("inf") for time_s in times_s):
        raise InputError(f"--death {text!r} should be NAME:SECONDS or NAME:SECONDS:BACK_AFTER, such as decode-0:30:10")
    return Death(at_s=times_s[0], instance=name, back_after_s=times_s[1] if len(times_s) == 2 else None)
