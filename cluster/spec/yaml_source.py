"""YAML text as plain data, with the line of every path, and without keys that are given twice."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from cluster.spec.problem import Problem, SpecError, YamlPath


@dataclass(frozen=True, slots=True, kw_only=True)
class YamlSource:
    """`lines`: where each path stands, counted from 1."""

    name: str
    data: Any
    lines: dict[YamlPath, int]


def read_yaml(text: str, name: str) -> YamlSource:
    """One document; SpecError for what is no YAML, is more than one document, or gives a key twice."""
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            raise SpecError(name, [Problem(path=(), message="is empty; `baton schema` describes what belongs here")])
        places = list(_places(node, (), frozenset()))
        if duplicates := _duplicates(places):
            raise SpecError(name, duplicates)
        return YamlSource(name=name, data=loader.construct_document(node), lines=dict(places))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        message = " ".join(filter(None, (error.context, error.problem)))
        raise SpecError(name, [Problem(path=(), message=f"is not valid YAML: {message}", line=line)]) from error
    except yaml.YAMLError as error:
        raise SpecError(name, [Problem(path=(), message=f"is not valid YAML: {str(error).splitlines()[0]}")]) from error


def _places(node: yaml.Node, path: YamlPath, above: frozenset[int]) -> Iterator[tuple[YamlPath, int]]:
    yield path, node.start_mark.line + 1
    if id(node) in above:  # an alias to a node that it is itself a part of
        raise yaml.constructor.ConstructorError(None, None, "found a node that contains itself", node.start_mark)
    above |= {id(node)}
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            for place, line in _places(value, (*path, str(key.value)), above):
                # A key's line is the place of what it names, also where the value starts further down.
                yield place, key.start_mark.line + 1 if place == (*path, str(key.value)) else line
    elif isinstance(node, yaml.SequenceNode):
        for index, value in enumerate(node.value):
            yield from _places(value, (*path, index), above)


def _duplicates(places: list[tuple[YamlPath, int]]) -> list[Problem]:
    first: dict[YamlPath, int] = {}
    problems: list[Problem] = []
    for path, line in places:
        if path not in first:
            first[path] = line
        elif path[-1] != "<<" and path[:-1] not in {problem.path for problem in problems}:
            message = f"is given twice, first in line {first[path]}; keep one"
            problems.append(Problem(path=path, message=message, line=line))
    return problems
