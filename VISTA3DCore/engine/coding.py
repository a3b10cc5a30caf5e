"""Frozen dataclasses to JSON and back, by their annotations."""

from __future__ import annotations

import math
import types
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, ClassVar, TypeVar, Union, get_args, get_origin, get_type_hints

from VISTA3DCore.engine.errors import InvalidParamsError

T = TypeVar("T", bound="Message")

_NAMES = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a string",
    list: "an array",
    dict: "an object",
    type(None): "null",
}


class Message:
    """Base of what travels. Subclasses are frozen dataclasses of scalars, tuples, dicts and further dataclasses.

    They leave comparing and printing to this class (``eq=False, repr=False``): what dataclasses generate for each of
    them would be a third of the time that importing the client takes.
    """

    #: Whether unknown fields are refused. Requests are strict, so that a misspelt field does not go unnoticed; results
    #: are not, so that a later engine may tell more.
    strict: ClassVar[bool] = False

    def __eq__(self, other: object) -> bool:
        return vars(self) == vars(other) if type(other) is type(self) else NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), repr(self)))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in vars(self).items())})"

    def to_json(self) -> dict[str, Any]:
        """Return the JSON object."""
        return _encode(self)

    @classmethod
    def from_json(cls: type[T], value: Any) -> T:
        """Return the message that a JSON object describes.

        :raises InvalidParamsError: if a field is missing, unknown or of the wrong type; the sentence names it.
        """
        return _decode(cls, value, "")


def _encode(value: Any) -> Any:
    if is_dataclass(value):
        return {field.name: _encode(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, dict):
        return {str(key): _encode(one) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return [_encode(one) for one in value]
    return value


def _decode(hint: Any, value: Any, where: str) -> Any:
    origin = get_origin(hint)
    if is_dataclass(hint):
        return _decode_object(hint, value, where)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(hint), value, where)
    if origin is tuple:
        return _decode_tuple(get_args(hint), value, where)
    if origin is dict:
        _require(isinstance(value, dict), where, "an object", value)
        return {key: _decode(get_args(hint)[1], one, f"{where}.{key}") for key, one in value.items()}
    return value if hint is Any else _decode_scalar(hint, value, where)


def _decode_object(cls: type, value: Any, where: str) -> Any:
    _require(isinstance(value, dict), where, "an object", value)
    hints, arguments, prefix = _hints(cls), {}, f"{where}." if where else ""
    known = [field.name for field in fields(cls)]
    for field in fields(cls):
        if field.name in value:
            arguments[field.name] = _decode(hints[field.name], value[field.name], prefix + field.name)
        elif field.default is MISSING and field.default_factory is MISSING:
            raise InvalidParamsError(f"The field '{prefix}{field.name}' is missing.")
    if getattr(cls, "strict", False) and (unknown := [name for name in value if name not in known]):
        raise InvalidParamsError(f"There is no field '{prefix}{unknown[0][:100]}'; known are: {', '.join(known)}.")
    return cls(**arguments)


def _decode_union(options: tuple[Any, ...], value: Any, where: str) -> Any:
    if value is None and type(None) in options:
        return None
    others = [option for option in options if option is not type(None)]
    if len(others) == 1:
        return _decode(others[0], value, where)
    _require(type(value) in others, where, " or ".join(_NAMES[option] for option in others), value)
    return value


def _decode_tuple(items: tuple[Any, ...], value: Any, where: str) -> tuple:
    _require(isinstance(value, list), where, "an array", value)
    if len(items) == 2 and items[1] is Ellipsis:
        items = (items[0],) * len(value)
    if len(items) != len(value):
        raise InvalidParamsError(f"The field '{where}' must have {len(items)} elements, not {len(value)}.")
    return tuple(
        _decode(hint, one, f"{where}[{place}]") for place, (hint, one) in enumerate(zip(items, value, strict=True))
    )


def _decode_scalar(hint: type, value: Any, where: str) -> Any:
    if hint is float and type(value) in (int, float):
        return _finite(value, where)
    _require(type(value) is hint, where, _NAMES[hint], value)
    return value


def _finite(value: int | float, where: str) -> float:
    """Return a number as float; JSON can write ones that are too large for it."""
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not math.isfinite(number):
        raise InvalidParamsError(f"The number in the field '{where}' is too large.")
    return number


def _require(fits: bool, where: str, wanted: str, value: Any) -> None:
    if not fits:
        subject = f"The field '{where}'" if where else "The message"
        raise InvalidParamsError(f"{subject} must be {wanted}, not {_NAMES.get(type(value), type(value).__name__)}.")


@cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)
