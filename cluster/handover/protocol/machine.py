"""What both ends of a handover share: states that only move along a table, and remember how they came."""

from collections.abc import Mapping
from enum import Enum
from typing import Generic, TypeVar

S = TypeVar("S", bound=Enum)


class InvalidTransition(RuntimeError):
    """A bug: an event led where the table does not lead. Carries the states that came before."""

    def __init__(self, request_id: str, history: list[S], target: S) -> None:
        path = " -> ".join(state.name for state in history)
        super().__init__(f"handover of {request_id}: {path} cannot become {target.name}")


class Machine(Generic[S]):
    def __init__(self, request_id: str, initial: S, table: Mapping[S, frozenset[S]]) -> None:
        self.request_id = request_id
        self.state = initial
        self._table = table
        self._history = [initial]

    def transition(self, target: S) -> None:
        if target not in self._table[self.state]:
            raise InvalidTransition(self.request_id, self._history, target)
        self.state = target
        self._history.append(target)
