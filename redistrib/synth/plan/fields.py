"""The fields of JSON objects that plans are made of: how each is written, and read strictly.

A reader takes a value of exactly the JSON type that the writer makes (true is no number, 2.0 no
count) and raises RedistribError with the field for any other. An object has the keys that its
reader knows and no more.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from redistrib.errors import RedistribError
from redistrib.synth.plan.tables import PermuteTable, RoutingTable
from redistrib.types.digits import (
    DeviceDigit,
    IndexDigit,
    Placement,
    parse_device_digit,
    parse_index_digit,
)

_T = TypeVar("_T")

REQUIRED: Any = object()
"""The default of a field that every object has."""


@dataclass(frozen=True, slots=True)
class Field:
    """The field `key` of a JSON object, from and to one attribute of a dataclass.

    An attribute that equals `default` is left out.
    """

    key: str
    attribute: str
    write: Callable[[Any], Any]
    read: Callable[[Any, str], Any]
    default: Any = REQUIRED


def write_fields(fields: Iterable[Field], item: object) -> dict[str, Any]:
    """The JSON fields of an object, in their order."""
    values = ((field, getattr(item, field.attribute)) for field in fields)
    return {field.key: field.write(value) for field, value in values if value != field.default}


def read_fields(fields: Iterable[Field], data: dict[str, Any]) -> dict[str, Any]:
    """Attributes by name, from an object that has these fields among others."""
    attributes = {}
    for field in fields:
        if field.key in data:
            attributes[field.attribute] = field.read(data[field.key], field.key)
        elif field.default is REQUIRED:
            raise RedistribError(f"there is no {field.key}", key=field.key)
    return attributes


def read_object(
    value: Any, label: str, required: Sequence[str], optional: Sequence[str] = ()
) -> dict[str, Any]:
    """An object with all required keys and none that is not known."""
    if not isinstance(value, dict):
        raise RedistribError(f"{label} is an object; got {shown(value)}", value=value)
    if missing := [key for key in required if key not in value]:
        raise RedistribError(f"{label} has no {missing[0]}", key=missing[0])
    if unknown := [key for key in value if key not in required and key not in optional]:
        raise RedistribError(f"{label} has the unknown key {shown(unknown[0])}", key=unknown[0])
    return value


def read_list(value: Any, label: str) -> list[Any]:
    """A list."""
    if not isinstance(value, list):
        raise RedistribError(f"{label} is a list; got {shown(value)}", value=value)
    return value


def read_text(value: Any, label: str) -> str:
    """A text."""
    if not isinstance(value, str):
        raise RedistribError(f"{label} is a text; got {shown(value)}", value=value)
    return value


def read_count(value: Any, label: str) -> int:
    """An integer of at least 0."""
    if type(value) is not int or value < 0:
        raise RedistribError(
            f"{label} is an integer of at least 0; got {shown(value)}", value=value
        )
    return value


def read_device_digit(value: Any, label: str) -> DeviceDigit:
    """A device digit, written `x:(pre)size`."""
    return parse_device_digit(read_text(value, label))


def read_index_digit(value: Any, label: str) -> IndexDigit:
    """An index digit, written `0:(pre)size`."""
    return parse_index_digit(read_text(value, label))


def list_of(read: Callable[[Any, str], _T]) -> Callable[[Any, str], tuple[_T, ...]]:
    """A reader of lists of what `read` reads."""

    def read_items_of(value: Any, label: str) -> tuple[_T, ...]:
        return tuple(read(item, label) for item in read_list(value, label))

    return read_items_of


read_counts = list_of(read_count)
read_device_digits = list_of(read_device_digit)


def read_placements(value: Any, label: str) -> tuple[Placement, ...]:
    """A list of pairs of a device digit and the index digit that it owns."""
    return tuple(
        (read_device_digit(device, label), read_index_digit(index, label))
        for device, index in (read_items(item, label, 2) for item in read_list(value, label))
    )


def read_digit_pairs(value: Any, label: str) -> tuple[tuple[DeviceDigit, DeviceDigit], ...]:
    """A list of pairs of device digits."""
    return tuple(
        (read_device_digit(a, label), read_device_digit(b, label))
        for a, b in (read_items(item, label, 2) for item in read_list(value, label))
    )


def read_items(value: Any, label: str, count: int) -> list[Any]:
    """A list of so many items."""
    items = read_list(value, label)
    if len(items) != count:
        raise RedistribError(f"an item of {label} has {count} entries; got {shown(items)}")
    return items


def write_texts(items: Iterable[object]) -> list[str]:
    """Digits as texts."""
    return [str(item) for item in items]


def write_text_rows(items: Iterable[Iterable[object]]) -> list[list[str]]:
    """Tuples of digits as lists of texts."""
    return [write_texts(item) for item in items]


def write_permute_table(table: PermuteTable) -> dict[str, Any]:
    """A table of a permute as an object."""
    return write_fields(_PERMUTE_TABLE, table)


def read_permute_table(value: Any, label: str) -> PermuteTable:
    """A table of a permute."""
    return PermuteTable(**_read_all(_PERMUTE_TABLE, value, label))


def write_routing_tables(tables: Iterable[RoutingTable]) -> list[dict[str, Any]]:
    """Tables of an exchange as objects."""
    return [write_fields(_ROUTING_TABLE, table) for table in tables]


def read_routing_tables(value: Any, label: str) -> tuple[RoutingTable, ...]:
    """Tables of an exchange."""
    items = (_read_all(_ROUTING_TABLE, item, label) for item in read_list(value, label))
    return tuple(RoutingTable(**item) for item in items)


def _read_rows(value: Any, label: str) -> tuple[tuple[tuple[int, int], ...], ...]:
    return tuple(
        tuple(
            (read_count(number, label), read_count(sender, label))
            for number, sender in (read_items(item, label, 2) for item in read_list(row, label))
        )
        for row in read_list(value, label)
    )


def _write_rows(rows: Iterable[Iterable[tuple[int, int]]]) -> list[list[list[int]]]:
    return [[list(entry) for entry in row] for row in rows]


def _read_all(fields: Sequence[Field], value: Any, label: str) -> dict[str, Any]:
    """The attributes of an object that has these fields and no others."""
    return read_fields(fields, read_object(value, label, [field.key for field in fields]))


_PERMUTE_TABLE = (
    Field("axes", "axes", write_texts, read_device_digits),
    Field("sources", "sources", list, read_counts),
    Field("placements", "placements", write_text_rows, read_placements),
)
_ROUTING_TABLE = (
    Field("axes", "axes", write_texts, read_device_digits),
    Field("owners", "owners", write_texts, read_device_digits),
    Field("rows", "rows", _write_rows, _read_rows),
)


def shown(value: object) -> str:
    """A value for a message of one line, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
