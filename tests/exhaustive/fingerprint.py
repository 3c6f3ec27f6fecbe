"""A state as bytes: two worlds with the same fingerprint do the same from here on.

Left out is what decides nothing: histories, counters for the status, settings, hashes that can be computed again.
"""

import copyreg
import hashlib
import marshal
import threading
from collections import Counter, OrderedDict, deque
from enum import Enum
from typing import Any

from cluster.engine.block_manager import BlockManager
from cluster.engine.scheduler import Scheduler
from cluster.engine.sequence import Sequence
from cluster.handover.protocol.machine import Machine
from cluster.instance.core import InstanceCore
from cluster.instance.inbound import Inbound
from cluster.instance.outbound import Outbound
from cluster.links.slot_table import SlotTable

# A lock is not part of a state, but pickle wants to know what to do with it.
copyreg.pickle(type(threading.Lock()), lambda lock: (threading.Lock, ()))

_SILENT: dict[type, frozenset[str]] = {
    Machine: frozenset({"_history", "_table"}),
    InstanceCore: frozenset({"_config", "_checksums", "_dispatches_seen", "_num_fenced", "_num_bad_blocks", "effects"}),
    Inbound: frozenset({"_last_heard_s", "_emit", "_activate", "_checksums"}),
    Outbound: frozenset({"_config", "_emit", "_release", "_checksums"}),
    Scheduler: frozenset({"config"}),
    BlockManager: frozenset({"_hash_of"}),
    Sequence: frozenset({"known_hashes", "arrival_time_s"}),
    SlotTable: frozenset({"_lock", "_on_quiet"}),
}
_PLAIN = (str, bytes, int, float, bool, type(None))
_fields: dict[type, tuple[str, ...] | None] = {}


def fingerprint(*roots: Any) -> bytes:
    seen: dict[int, int] = {}
    return hashlib.blake2b(marshal.dumps(tuple(_walk(root, seen) for root in roots), 0), digest_size=16).digest()


def _walk(it: Any, seen: dict[int, int]) -> Any:
    if isinstance(it, _PLAIN):
        return it
    if isinstance(it, Enum):
        return (type(it).__name__, it.name)
    if isinstance(it, tuple):
        return tuple([_walk(part, seen) for part in it])
    if isinstance(it, frozenset):
        return ("set", *sorted((_walk(part, seen) for part in it), key=repr))
    if getattr(type(it), "__dataclass_params__", None) is not None and type(it).__dataclass_params__.frozen:
        return (type(it).__name__, *[_walk(getattr(it, name), seen) for name in _fields_of(type(it)) or ()])
    number = seen.setdefault(id(it), len(seen))
    if number != len(seen) - 1:
        return ("ref", number)
    if isinstance(it, list | deque):
        return ["list", *[_walk(part, seen) for part in it]]
    if isinstance(it, bytearray):
        return bytes(it)
    if isinstance(it, set):
        return ("set", *sorted((_walk(part, seen) for part in it), key=repr))
    if isinstance(it, Counter):
        return ["counts", *sorted((key, count) for key, count in it.items() if count)]
    if isinstance(it, dict | OrderedDict):
        return ["dict", *[(_walk(key, seen), _walk(value, seen)) for key, value in it.items()]]
    fields = _fields_of(type(it))
    if fields is None:
        return type(it).__name__  # a function, bound or not
    return [type(it).__name__, *[_walk(getattr(it, name), seen) for name in _names(it, fields)]]


def _names(it: Any, fields: tuple[str, ...]) -> Any:
    if fields:
        return fields
    silent = _silent(type(it))
    return [name for name in sorted(vars(it)) if name not in silent]


def _fields_of(kind: type) -> tuple[str, ...] | None:
    """Of a class with slots; () for one whose objects have a dict; None for what is no state."""
    if kind not in _fields:
        slots = tuple(name for base in kind.__mro__ for name in getattr(base, "__slots__", ()))
        if slots:
            _fields[kind] = tuple(name for name in slots if name not in _silent(kind))
        else:
            is_state = "__dict__" in dir(kind) and kind.__module__.split(".")[0] in ("cluster", "router", "tests")
            _fields[kind] = () if is_state else None
    return _fields[kind]


def _silent(kind: type) -> frozenset[str]:
    return frozenset().union(*(_SILENT.get(base, frozenset()) for base in kind.__mro__))
