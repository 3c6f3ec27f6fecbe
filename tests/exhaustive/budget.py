"""How much may go wrong on one path, and how often the request may be moved."""

from dataclasses import astuple, dataclass, fields


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """`grants`: handovers, at dispatch or later. `suspicions`: a front stream breaks though both ends live.

    `refusals`: no room, a bad block, a transfer that fails. `losses`, `doubles`, `delays`: of one message between two
    instances. `cuts`: the stream between two instances breaks. `timers`: a lease, a reservation, an answer or a front
    is given up although it is alive and under way. `front_losses`: one message between the front and an instance is
    lost though their stream holds, which a stream does not do: to see what rests on that.
    """

    grants: int = 0
    crashes: int = 0
    suspicions: int = 0
    restarts: int = 0
    aborts: int = 0
    refusals: int = 0
    losses: int = 0
    doubles: int = 0
    delays: int = 0
    cuts: int = 0
    timers: int = 0
    front_losses: int = 0

    def __str__(self) -> str:
        return " ".join(f"{kind}={count}" for kind, count in zip(KINDS, astuple(self), strict=True) if count)


KINDS = tuple(it.name for it in fields(Budget))
GRANT, CRASH, SUSPICION, RESTART, ABORT, REFUSAL, LOSS, DOUBLE, DELAY, CUT, TIMER, FRONT_LOSS = range(len(KINDS))
