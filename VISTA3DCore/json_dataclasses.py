"""Convert frozen dataclasses to JSON values and back, by their annotations. Standard library alone.

Fields are scalars, tuples, mappings (keys are strings or integers), optional values, unions of scalars, ``Any``, and
further dataclasses. A class with ``strict: ClassVar[bool] = True`` refuses unknown fields; others ignore them.
"""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

T = TypeVar("T")

_NAMES: dict[type, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class JsonError(ValueError):
    """A JSON value does not fit its dataclass; the sentence names the field."""


class UnknownFieldError(JsonError):
    """A strict dataclass has no such fields.

    :ivar names: the unknown fields, in their order.
    """

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message)
        self.names = names


def to_json(value: Any) -> Any:
    """Return a value as JSON values: dataclasses and mappings become objects, tuples become arrays."""
    if is_dataclass(value):
        return {field.name: to_json(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [to_json(item) for item in value]
    return value


def from_json(kind: type[T], value: Any) -> T:
    """Return the dataclass that a JSON object describes.

    :raises JsonError: if a field is missing, of the wrong type or (strict classes) unknown; what a ``__post_init__``
        raises passes.
    """
    return _decode_object(kind, value, "")


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if is_dataclass(hint):
        return _decode_object(hint, value, where)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, where)
    if origin is tuple:
        return _decode_tuple(get_args(hint), value, where)
    if origin in (dict, Mapping):
        return _decode_mapping(hint, value, where)
    return value if hint is Any else _decode_scalar(hint, value, where)


def _decode_object(kind: Any, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), where, "an object", value)
    hints, prefix = _hints(kind), f"{where}." if where else ""
    arguments: dict[str, Any] = {}
    known = [field.name for field in fields(kind)]
    for field in fields(kind):
        if field.name in value:
            arguments[field.name] = _decode(hints[field.name], value[field.name], prefix + field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise JsonError(f"The field '{prefix}{field.name}' is missing.")
    if getattr(kind, "strict", False) and (unknown := tuple(name for name in value if name not in known)):
        sentence = f"There is no field '{prefix}{unknown[0][:100]}'; known are: {', '.join(known)}."
        raise UnknownFieldError(sentence, unknown)
    return kind(**arguments)


def _decode_mapping(hint: Any, value: Any, where: str) -> dict[Any, Any]:
    keys, items = get_args(hint)
    _require(isinstance(value, dict), where, "an object", value)
    return {
        _integer_key(key, where) if keys is int else key: _decode(items, item, f"{where}.{key:.100}")
        for key, item in value.items()
    }


def _integer_key(key: str, where: str) -> int:
    if not (key.isascii() and key.isdecimal() and len(key) <= 9 and str(int(key)) == key):
        raise JsonError(f"The key '{key[:100]}' in the field '{where}' is not an integer.")
    return int(key)


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) == 1:
        return _decode(others[0], value, where)
    _require(type(value) in others, where, " or ".join(_NAMES[option] for option in others), value)
    return value


def _decode_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    _require(isinstance(value, list), where, "an array", value)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise JsonError(f"The field '{where}' must have {len(items)} elements, not {len(value)}.")
    return tuple(
        _decode(hint, item, f"{where}[{place}]") for place, (hint, item) in enumerate(zip(items, value, strict=True))
    )


def _decode_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float):
        return _finite(value, where)
    _require(type(value) is hint, where, _NAMES[hint], value)
    return value


def _finite(value: int | float, where: str) -> float:
    """Return a number as float; JSON can write numbers that are too large for it, and Python reads NaN."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise JsonError(f"The field '{where}' is not a number.")
    if math.isinf(number):
        raise JsonError(f"The number in the field '{where}' is too large.")
    return number


def _require(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        subject = f"The field '{where}'" if where else "The message"
        raise JsonError(f"{subject} must be {wanted}, not {_NAMES.get(type(value), type(value).__name__)}.")


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)
