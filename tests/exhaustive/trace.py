"""A counterexample as a story."""

import re
from typing import Any

from cluster.messages import SequenceState
from tests.exhaustive.cast import NAMES
from tests.exhaustive.events import Event
from tests.exhaustive.network import Stream
from tests.exhaustive.search import Counterexample
from tests.exhaustive.world import State, World

_EPOCH = re.compile(r"Epoch\(term=(\d+), n=(\d+)\)")
_HOLDER = re.compile(r"Holder\(instance='(\w+)', incarnation=(\d+)\)")
_FATES = {
    "lose": " -- is lost",
    "double": " -- is doubled",
    "hold_back": " -- is held back",
    "fail_transfer": " -- fails",
}
_HOW = {"from_source_while_full": " -- finds no room", "bad_block": " -- arrives damaged"}
_STREAM = {
    "join": "{} joins",
    "instance_leaves": "{} loses the front",
    "front_loses": "front loses {}",
    "crash": "{} crashes",
    "repeat": "{} says again what nobody answered",
}
_NODE = {"step": "{} steps", "doubt": "{} has waited too long", "lease_over": "{}: the lease is over"}


def tell(world: World, found: Counterexample) -> str:
    states = [found.start, *(state for _, state in found.trace)]
    lines = [
        f"{number:3}. {sentence(world, before, event)}"
        for number, (before, (event, _)) in enumerate(zip(states, found.trace, strict=False), 1)
    ]
    return "\n".join([*lines, f"  => {found.law}", *_picture(world, states[-1])])


def sentence(world: World, before: State, event: Event) -> str:
    _, what, args = event
    network = world.networks.values[before[4]]
    if what in ("up", "lose_up", "down", "lose_down"):
        return _on_stream(world, network.streams[args[0]], NAMES[args[0]], what)
    if what in ("deliver", *_FATES):
        lane, position = args[0], args[1] if len(args) > 1 else 0
        message = _words(world, dict(network.lanes)[lane][position].message)
        late = " (late)" if lane.kind.startswith("stray") else ""
        fate = _FATES.get(what, "") or (_HOW[args[2]] if len(args) > 2 else "")
        return f"{NAMES[lane.sender]} -> {NAMES[lane.receiver]}: {message}{late}{fate}"
    return _other(what, args)


def _on_stream(world: World, stream: Stream, name: str, what: str) -> str:
    is_up, fate = what.endswith("up"), " -- is lost" if what.startswith("lose") else ""
    ends, message = (f"{name} -> front", stream.up[0]) if is_up else (f"front -> {name}", stream.down[0])
    return f"{ends}: {_words(world, message)}{fate}"


def _other(what: str, args: tuple[Any, ...]) -> str:
    if what in _STREAM:
        return _STREAM[what].format(NAMES[args[0]])
    if what == "node":
        return _NODE.get(str(args[1]), "{} " + str(args[1])).format(NAMES[args[0]])
    if what == "learn":
        return f"{NAMES[args[0].observer]} learns that {_life(args[0][1:])} is dead"
    if what == "cut":
        return f"the stream from {NAMES[args[0]]} to {NAMES[args[1]]} breaks"
    if what == "front":
        return "front: " + " ".join([args[0].replace("_", " "), *(_life(it) if it else "none" for it in args[1:])])
    return what.replace("_", " ")


def _life(life: Any) -> str:
    return f"{NAMES[life[0]]}({life[1]})"


def _words(world: World, number: int) -> str:
    message = world.messages.values[number]
    if isinstance(message, tuple):
        transfer = message[0]
        return f"{len(transfer.block_ids)} blocks from {transfer.first_block} on, reservation {transfer.reservation}"
    parts = []
    for field in ("epoch", "grant", "grant_epoch", "reservation", "next_index", "updates", "held", "state"):
        value = getattr(message, field, None)
        if value is not None:
            parts.append(_value(field, value))
    return f"{type(message).__name__}({', '.join(parts)})"


def _value(field: str, value: Any) -> str:
    if isinstance(value, SequenceState):
        return f"{len(value.output_token_ids)} tokens"
    if field == "grant":
        return _short(f"grant {value.epoch} to {value.receiver}")
    if field == "updates":
        return "; ".join(map(_update, value))
    if field == "held":
        return "; ".join(_short(f"{it.epoch} outranks {it.outranks}") for it in value) or "nothing"
    return _short(f"{field} {value}")


def _update(update: Any) -> str:
    tokens = list(range(update.start_index, update.start_index + len(update.token_ids)))
    end = f" {update.finish_reason.value}" if update.finish_reason else ""
    return _short(f"tokens {tokens}{end} at {update.epoch}")


def _short(text: str) -> str:
    return _HOLDER.sub(r"\1(\2)", _EPOCH.sub(r"\1.\2", text))


def _picture(world: World, state: State) -> list[str]:
    """Who has what in the last state."""
    front = world.fronts.get(state[0])
    entry = front.entry
    owner = f"owner {entry.owner} at {entry.epoch}, grant {entry.grant and entry.grant.epoch}" if entry else "no entry"
    lines = [f"     front: {_short(owner)}; the client has {front.num_received} tokens, {front.end or 'waits'}"]
    for index, part in enumerate(state[1:4]):
        core = world.nodes.get(part).core
        hosted = [f"{it.epoch} {it.handover.state.name if it.handover else ''}" for it in core._hosted.values()]
        reserved = [f"{key[1]} {it.receiver.state.name}" for key, it in core._inbound._all.items()]
        lines.append(_short(f"     {NAMES[index]}: hosts {hosted or 'nothing'}, has reserved {reserved or 'nothing'}"))
    return lines
