"""What is wrong with a deployment file, and where."""

from dataclasses import dataclass

YamlPath = tuple[str | int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """`line` counts from 1; None when the place is not in the file (a missing key)."""

    path: YamlPath
    message: str
    line: int | None = None

    def __str__(self) -> str:
        place = format_path(self.path) or "the document"
        return f"{place}: {self.message}" + (f" (line {self.line})" if self.line else "")


class SpecError(ValueError):
    """A deployment file that cannot be used; `problems` holds all that was found, `source` names the file."""

    def __init__(self, source: str, problems: list[Problem]) -> None:
        super().__init__("\n".join(f"{source}: {problem}" for problem in problems))
        self.source = source
        self.problems = problems


def format_path(path: YamlPath) -> str:
    """("spec", "pools", 1, "replicas") as spec.pools[1].replicas."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")
