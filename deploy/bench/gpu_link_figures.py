"""From timings on a GPU to the figures of `baton bench links --device cuda`, as `--json` has them."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from deploy.bench.aims import Aim

COPY, PACK, UNPACK, PACK_HEADS, CHECKSUM = "copy", "pack", "unpack", "pack half of the heads", "checksum"
MOVE, MOVE_CHECKED = "pack, copy, unpack", "the same, checksums at both ends"
TOUCHED = {COPY: 2, PACK: 2, UNPACK: 2, PACK_HEADS: 2, CHECKSUM: 1, MOVE: 6, MOVE_CHECKED: 8}
"""How often each byte that moves is read or written."""

LEAST_COPY_SHARE = 0.8
MOST_SLOWDOWN = 0.015

Seconds = Mapping[str, Mapping[int, Sequence[float]]]
"""By contestant and bytes moved, one a round."""


def copy_rows(seconds: Seconds) -> list[dict[str, Any]]:
    """`share_of_copy`: of the bytes a second that a plain copy of as much touches, in the same round."""
    rows = []
    for what, by_size in seconds.items():
        for num_bytes, mine in by_size.items():
            copies = seconds[COPY][num_bytes]
            weight = TOUCHED[what] / TOUCHED[COPY]
            shares = [weight * copy_s / own_s for copy_s, own_s in zip(copies, mine, strict=True)]
            rows.append(
                {
                    "what": what,
                    "num_bytes": num_bytes,
                    "seconds": median(mine),
                    "bytes_per_s": num_bytes / median(mine),
                    "share_of_copy": median(shares),
                }
            )
    return rows


def slowdown(still_s: Sequence[tuple[float, float]], leaving_s: Sequence[float]) -> float:
    """Of a step while blocks leave, beside the steps before and after; medians of the rounds."""
    rounds = zip(still_s, leaving_s, strict=True)
    return median(leaving / ((before + after) / 2) for (before, after), leaving in rounds) - 1


def link_aims(figures: dict[str, Any]) -> list[Aim]:
    """Copies are judged by the largest size: smaller ones fit into a GPU's cache, and are mostly launches.

    Of the budgets, the first is the default.
    """
    largest = max(row["num_bytes"] for row in figures["copies"])
    aims = [
        Aim(what=f"{row['what']}: share of a plain copy", value=row["share_of_copy"], least=LEAST_COPY_SHARE)
        for row in figures["copies"]
        if row["num_bytes"] == largest and row["what"] in (PACK, UNPACK)
    ]
    for key, what in (("same_kv", "the same KV, byte for byte"), ("same_tokens", "the same tokens")):
        aims.append(Aim(what=f"migration: requests with {what}", value=figures["migration"][key], least=1.0))
    slower = figures["leaving"][0]["slowdown"]
    aims.append(Aim(what="a decode step while blocks leave: slower by", value=slower, most=MOST_SLOWDOWN))
    return aims
