"""Strict YAML files: read without surprises, checked against a pydantic model, errors as `file: key: what is wrong, what is allowed`."""

from __future__ import annotations

import difflib
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from medssl.errors import UserError

M = typing.TypeVar("M", bound=BaseModel)
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_]*$", max_length=64)]
"""How studies, data sets, targets and arms are called."""


class StrictModel(BaseModel):
    """Base of every file format of medssl: unknown keys and wrong types are errors, values do not change once read."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, validate_default=True, allow_inf_nan=False)


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, but a repeated key is an error and `1e-3` is a number (YAML 1.2; PyYAML reads it as text)."""


def _mapping_without_repeats(loader: _Loader, node: yaml.MappingNode) -> dict:
    seen = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not text; quote it", key_node.start_mark)
        if key in seen:
            raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", key_node.start_mark)
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping_without_repeats)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:[0-9][0-9_]*)(?:\.[0-9_]*)?[eE][-+]?[0-9]+$"),
    list("-+0123456789"),
)


def parse_yaml(text: str, name: str, error: type[UserError]) -> Any:
    """The value of a YAML text.

    Raises:
        error: the text is not YAML, or a key stands twice; one line with the line number.
    """
    try:
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as problem:
        mark = problem.problem_mark
        where = f"line {mark.line + 1}: " if mark else ""
        raise error(f"{name}: {where}{problem.problem or problem.context}") from problem
    except yaml.YAMLError as problem:
        raise error(f"{name}: is not YAML ({' '.join(str(problem).split())})") from problem


def read_yaml(path: Path, error: type[UserError], what: str) -> Any:
    """The value of a YAML file.

    Raises:
        error: the file is missing, not text, or not YAML.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise error(f"{path}: there is no such {what}") from None
    except (OSError, UnicodeDecodeError) as problem:
        raise error(f"{path}: the {what} cannot be read ({type(problem).__name__})") from problem
    return parse_yaml(text, str(path), error)


def check(model: type[M], value: Any, name: str, error: type[UserError]) -> M:
    """`value` as a `model`.

    Raises:
        error: with one line for the first problem in the order of the file, and the number of further ones.
    """
    if not isinstance(value, dict):
        raise error(f"{name}: must be a mapping of keys to values, not {_kind(value)}")
    try:
        return model.model_validate(value)
    except ValidationError as problem:
        lines = list(dict.fromkeys(_explain(model, value, item) for item in problem.errors()))
        more = f" (and {len(lines) - 1} more)" if len(lines) > 1 else ""
        raise error(f"{name}: {lines[0]}{more}") from problem


def near_miss(word: str, allowed: list[str]) -> str:
    """`; did you mean 'x'?` where a name close to `word` is allowed, else nothing."""
    close = difflib.get_close_matches(word, allowed, n=1, cutoff=0.6)
    return f"; did you mean '{close[0]}'?" if close else ""


def _kind(value: Any) -> str:
    names = {
        dict: "a mapping",
        list: "a list",
        str: "text",
        bool: "true/false",
        int: "a whole number",
        float: "a number",
    }
    return "nothing" if value is None else names.get(type(value), type(value).__name__)


def _explain(model: type[BaseModel], value: dict, item: dict) -> str:
    location = _place(value, item["loc"], missing=item["type"] == "missing")
    key = ".".join(str(part) for part in location)
    context, given = item.get("ctx", {}), item.get("input")
    match item["type"]:
        case "extra_forbidden":
            allowed = sorted(_fields_at(model, list(item["loc"][:-1])))
            return f"{key}: unknown key{near_miss(str(location[-1]), allowed)}; allowed: {', '.join(allowed)}"
        case "missing":
            return f"{key}: is missing"
        case "literal_error":
            allowed = re.findall(r"'([^']*)'", context["expected"])
            hint = near_miss(str(given), allowed) if isinstance(given, str) else ""
            return f"{key}: is {given!r}{hint}; allowed: {context['expected']}"
        case "union_tag_invalid":
            hint = near_miss(context["tag"], re.findall(r"'([^']*)'", context["expected_tags"]))
            return f"{key}: {context['discriminator']} is {context['tag']!r}{hint}; allowed: {context['expected_tags']}"
        case "union_tag_not_found":
            return f"{key}: {context['discriminator']} is missing"
        case "value_error":  # one about the whole file names its keys itself
            return f"{key}: {context['error']}" if key else str(context["error"])
        case "string_pattern_mismatch":
            return f"{key}: is {given!r}; allowed: text that matches {context['pattern']}"
        case _:
            shown = f"is {given!r}, " if isinstance(given, str | int | float | bool) else f"is {_kind(given)}, "
            message = item["msg"][0].lower() + item["msg"][1:]
            return f"{key}: {shown}{message.replace('input should', 'should')}"


def _place(value: Any, location: tuple, *, missing: bool) -> list:
    """`location` without what pydantic puts into it for the members of a union, which are no keys of the file."""
    place = []
    for index, part in enumerate(location):
        inside = part in value if isinstance(value, dict) else isinstance(value, list) and isinstance(part, int)
        if inside:
            value = value[part]
            place.append(part)
        elif missing and index == len(location) - 1:
            place.append(part)
    return place


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated, dict, list):
        return [model for part in typing.get_args(annotation) for model in _models_in(part)]
    return []


def _fields_at(model: type[BaseModel], location: list) -> set[str]:
    """The names of the fields of the model that stands at `location`; of every member where a union stands there."""
    models = [model]
    for part in location:
        reached = [inner for m in models if part in m.model_fields for inner in _models_in(m.model_fields[part].annotation)]
        # A part that is no field is the key of a mapping, the index of a list or the tag of a union: the models stay,
        # narrowed to the member that the tag names.
        tagged = [m for m in models if any(_is_literal(f.annotation, part) for f in m.model_fields.values())]
        models = reached or tagged or models
    return {name for m in models for name in m.model_fields}


def _is_literal(annotation: Any, value: Any) -> bool:
    return typing.get_origin(annotation) is typing.Literal and value in typing.get_args(annotation)
