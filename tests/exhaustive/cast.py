"""Who plays, by name and by number."""

from cluster.messages import Holder

NAMES = ("A", "B", "C")
INDEX = {name: index for index, name in enumerate(NAMES)}


def holder(index: int, life: int) -> Holder:
    return Holder(NAMES[index], life)


def key(it: Holder) -> tuple[int, int]:
    return INDEX[it.instance], it.incarnation
