"""What pydantic found, in words a user can act on: the YAML path, what is wrong, and what would be right."""

import difflib
from typing import Any, get_args

from pydantic import BaseModel, ValidationError

from cluster.spec.problem import Problem, YamlPath
from cluster.spec.yaml_source import YamlSource


def explain(error: ValidationError, root: type[BaseModel], source: YamlSource) -> list[Problem]:
    return [_problem(dict(detail), root, source) for detail in error.errors()]


def _problem(detail: dict[str, Any], root: type[BaseModel], source: YamlSource) -> Problem:
    path: YamlPath = tuple(detail["loc"])
    line = source.lines.get(path[:-1] if detail["type"] == "missing" else path)
    return Problem(path=path, message=_message(detail, root, path), line=line)


def _message(detail: dict[str, Any], root: type[BaseModel], path: YamlPath) -> str:
    given, kind, context = detail["input"], detail["type"], detail.get("ctx", {})
    match kind:
        case "extra_forbidden" if path[-1] == "dtype" and "pools" in path:
            return "is for no pool alone: KV moves between all of them; it is spec.model.dtype"
        case "extra_forbidden":
            return f"is not known{_did_you_mean(str(path[-1]), _keys_at(root, path[:-1]))}"
        case "missing":
            return "is missing"
        case "literal_error":
            expected = [text.strip("'") for text in context["expected"].replace(" or ", ", ").split(", ")]
            close = difflib.get_close_matches(str(given), expected if len(expected) > 1 else [], n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            return f"is {given!r}; should be {context['expected']}{hint}"
        case "int_type" | "float_type" if isinstance(given, str):
            return f"is the text {given!r}; should be a number (no quotes; an exponent needs point and sign: 1.0e+3)"
        case "value_error":
            return f"{context['error']}"
        case "model_type" | "model_attributes_type":
            return f"should be a mapping with the keys {', '.join(_keys_at(root, path))}; is {_describe(given)}"
        case "list_type":
            return f"should be a list; is {_describe(given)}"
        case "too_short":
            return "is empty; should have at least one entry"
        case "string_pattern_mismatch":
            return f"is {given!r}; should be lower-case letters, digits and dashes, 40 at most"
    return f"is {_describe(given)}; {_lower_first(detail['msg']).replace('input should', 'should')}"


def _describe(given: object) -> str:
    if given is None:
        return "empty"
    kinds: dict[type, str] = {dict: "a mapping", list: "a list", str: f"the text {given!r}"}
    return kinds.get(type(given), repr(given))


def _did_you_mean(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; known here: {', '.join(known)}"


def _keys_at(model: type[BaseModel], path: YamlPath) -> list[str]:
    for part in path:
        if isinstance(part, str):
            model = _model_in(model.model_fields[part].annotation)
    return list(model.model_fields)


def _model_in(annotation: Any) -> type[BaseModel]:
    """The schema's part within an annotation: itself, or the one inside a list."""
    return annotation if isinstance(annotation, type) else _model_in(get_args(annotation)[0])


def _lower_first(text: str) -> str:
    return text[:1].lower() + text[1:]
