"""Every part of the world in every state it was ever in, and what each event made of it: computed once each.

The front and the instances only meet through messages. A state of the world is therefore a few numbers, and most
transitions are a look into a table; the real objects run once for each pair of a local state and an event.
"""

import pickle
from collections.abc import Callable, Hashable
from typing import Any, Generic, NamedTuple, TypeVar

from tests.exhaustive.fingerprint import fingerprint

T = TypeVar("T", bound=Hashable)


class Interned(Generic[T]):
    """Values by number."""

    def __init__(self) -> None:
        self._numbers: dict[T, int] = {}
        self.values: list[T] = []

    def __len__(self) -> int:
        return len(self.values)

    def number(self, value: T) -> int:
        number = self._numbers.setdefault(value, len(self.values))
        if number == len(self.values):
            self.values.append(value)
        return number


class Turn(NamedTuple):
    """`state` None: this broke a law, or the code, and `broken` says how."""

    state: int | None
    out: tuple[tuple[Any, ...], ...] = ()
    broken: str = ""


class LocalStates:
    """`features(part)`: what the search wants to know of a state without unpacking it.

    `open(event)` turns the numbers in an event into what they stand for, and `close(out)` the other way.
    """

    def __init__(
        self,
        features: Callable[[Any], Any],
        open: Callable[[tuple[Any, ...]], tuple[Any, ...]],
        close: Callable[[tuple[Any, ...]], tuple[Any, ...]],
    ) -> None:
        self._features, self._open, self._close = features, open, close
        self._states: Interned[bytes] = Interned()
        self._pickles: list[bytes] = []
        self._turns: dict[tuple[int, tuple[Any, ...]], Turn] = {}
        self.features: list[Any] = []

    def __len__(self) -> int:
        return len(self._pickles)

    @property
    def num_turns(self) -> int:
        return len(self._turns)

    def put(self, part: Any) -> int:
        number = self._states.number(fingerprint(part))
        if number == len(self._pickles):
            self._pickles.append(pickle.dumps(part, pickle.HIGHEST_PROTOCOL))
            self.features.append(self._features(part))
        return number

    def get(self, number: int) -> Any:
        return pickle.loads(self._pickles[number])

    def turn(self, number: int, event: tuple[Any, ...]) -> Turn:
        key = (number, event)
        turn = self._turns.get(key)
        if turn is None:
            turn = self._turns[key] = self._compute(number, event)
        return turn

    def _compute(self, number: int, event: tuple[Any, ...]) -> Turn:
        part = self.get(number)
        try:
            out = part.turn(*self._open(event))
        except Exception as error:  # a broken law, an assertion or a plain bug: the search shows how it came to it
            return Turn(None, broken=f"{type(error).__name__}: {error}")
        return Turn(self.put(part), tuple(self._close(it) for it in out))
