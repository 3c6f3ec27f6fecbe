"""The same requests at several rates: how many of them are still served within their SLOs."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from deploy.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class AtRate:
    """`attainment`: the share of requests that met all SLOs; `attainment_of`: each SLO by itself."""

    rate: float
    attainment: float
    request_goodput: float
    attainment_of: Mapping[str, float] = field(default_factory=dict)


def parse_rates(text: str) -> list[float]:
    """Numbers above 0 with commas between them, in order; InputError."""
    try:
        rates = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--rates {text!r} should be requests a second, such as 1,2,4") from None
    if not all(0.0 < rate < float("inf") for rate in rates):
        raise InputError(f"--rates {text!r}: each should be above 0")
    return sorted(set(rates))
