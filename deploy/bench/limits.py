"""The limits on latencies that count a request as served well, as they are typed or stand in a deployment's file."""

import re
from pathlib import Path

from cluster.spec.deployment import Slos
from deploy.errors import InputError

_SLO = re.compile(r"(ttft|tpot|e2el):(\d+(?:\.\d+)?)")


def split_words(words: list[str]) -> tuple[Path | None, dict[str, float]]:
    """`--goodput ttft:100 tpot:20` leaves its second limit among the arguments: by its form it is told from a file."""
    matches = [(word, _SLO.fullmatch(word)) for text in words for word in text.split()]
    files = [word for word, match in matches if not match]
    if len(files) > 1:
        raise InputError(f"{files[1]!r} is neither the one deployment file nor a limit such as ttft:100")
    return Path(files[0]) if files else None, {match[1]: float(match[2]) for _, match in matches if match}


def limits_of(slos: Slos) -> dict[str, float]:
    return {name: limit for name, limit in (("ttft", slos.ttft_ms), ("tpot", slos.tpot_ms)) if limit is not None}
