"""The text of a plan, read strictly: each entry has its type, and nothing stands there unread.

`read_plan` takes JSON apart by the tables below, which give each key with the reader of its value.
A reader takes a value and what to call it, and raises CheckError for a value of another kind: true
is no number, 2.0 no count, and a key that is not in the table is an error. On
`{"collective": "all_gather", ..., "placements": [["x:(1)2", "0:(1)2"]]}` it gives the same keys,
with `placements` as [[DeviceDigit("x", 1, 2), IndexDigit(0, 1, 2)]].

What is read here is in the order of the file's size; all that is enumerated later is counted first.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from itertools import chain
from typing import Any

import numpy as np

from redistrib.errors import CheckError
from redistrib.types.digits import parse_device_digit, parse_index_digit

Reader = Callable[[Any, str], Any]
ObjectReader = Callable[[Any, str], dict[str, Any]]
ListReader = Callable[[Any, str], list[Any]]

FORMATS = ("redistrib-plan/1", "redistrib-plan/2")
MOST = 1 << 63  # every count that is not a size in bytes fits a machine word
MAX_TEXT = 1 << 16  # characters of a type
MAX_AXES = 256


def read_plan(plan: Any) -> dict[str, Any]:
    """The entries of a plan given as its JSON text or as the data in it; `steps` unread."""
    if isinstance(plan, str | bytes | bytearray):
        try:
            plan = json.loads(plan)
        except (ValueError, RecursionError) as error:
            raise CheckError(f"a plan is JSON: {error}") from error
    form = plan.get("format") if type(plan) is dict else None
    if form not in FORMATS:
        raise _error("the format of a plan", " or ".join(FORMATS), form)
    return _object(_PLAN if form == FORMATS[1] else _FIRST_PLAN, _OPTIONAL)(plan, "a plan")


def read_step(step: Any) -> dict[str, Any]:
    """The entries of a step."""
    name = step.get("collective") if type(step) is dict else None
    if type(name) is not str or name not in _COLLECTIVES:
        raise _error("a collective", f"one of {', '.join(_COLLECTIVES)}", name)
    by_table = name == "collective_permute" and "table" in step
    fields = {"table": _object(_PERMUTE_TABLE)} if by_table else _COLLECTIVES[name]
    return _object(_STEP | fields, _ONLY_EXCHANGE if name == "exchange" else {})(step, name)


def _error(subject: str, legal: str, value: Any) -> CheckError:
    return CheckError(f"{subject} is {legal}; got {repr(value)[:80]}")


def _object(
    required: Mapping[str, Reader], optional: Mapping[str, Reader] | None = None
) -> ObjectReader:
    readers = {**required, **(optional or {})}

    def read(value: Any, subject: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise _error(subject, "an object", value)
        if missing := [key for key in required if key not in value]:
            raise CheckError(f"{subject} has the key {missing[0]}; it is missing")
        if unknown := [key for key in value if key not in readers]:
            raise _error(f"a key of {subject}", f"one of {', '.join(readers)}", unknown[0])
        return {key: readers[key](entry, key) for key, entry in value.items()}

    return read


def _mapping(reader: Reader) -> ObjectReader:
    def read(value: Any, subject: str) -> dict[str, Any]:
        if type(value) is not dict:
            raise _error(subject, "an object", value)
        return {
            _text(key, subject): reader(entry, f"{subject}.{key}") for key, entry in value.items()
        }

    return read


def _list(reader: Reader, most: int | None = None) -> ListReader:
    def read(value: Any, subject: str) -> list[Any]:
        if type(value) is not list or (most is not None and len(value) > most):
            raise _error(subject, f"a list of at most {most} items" if most else "a list", value)
        return [reader(item, subject) for item in value]

    return read


def _tuple(*readers: Reader) -> Reader:
    def read(value: Any, subject: str) -> list[Any]:
        if type(value) is not list or len(value) != len(readers):
            raise _error(f"an item of {subject}", f"a list of {len(readers)}", value)
        return [reader(item, subject) for reader, item in zip(readers, value, strict=True)]

    return read


def _or_null(reader: Reader) -> Reader:
    return lambda value, subject: None if value is None else reader(value, subject)


def _text(value: Any, subject: str) -> str:
    if type(value) is not str or len(value) > MAX_TEXT:
        raise _error(subject, f"a text of at most {MAX_TEXT} characters", value)
    return value


def _integer(value: Any, subject: str) -> int:
    if type(value) is not int or value < 0:
        raise _error(subject, "an integer of at least 0", value)
    return value


def _count(value: Any, subject: str) -> int:
    if _integer(value, subject) >= MOST:
        raise _error(subject, "below 2**63", value)
    return int(value)


def _number(value: Any, subject: str) -> float:
    if type(value) not in (int, float) or not abs(value) < 1 << 1000:  # NaN is below nothing
        raise _error(subject, "a finite number", value)
    return float(value)


def _any_list(value: Any, subject: str) -> list[Any]:
    return _list(lambda item, _: item)(value, subject)


def _device_digit(value: Any, subject: str) -> Any:
    return parse_device_digit(_text(value, subject))


def _index_digit(value: Any, subject: str) -> Any:
    return parse_index_digit(_text(value, subject))


def _devices(value: Any, subject: str) -> Any:
    """None, the ids by position, or the first of ids that follow one by one."""
    if isinstance(value, dict):
        return _object({"first": _count})(value, subject)
    return _or_null(_list(_count))(value, subject)


def _rows(value: Any, subject: str) -> tuple[int, Any]:
    """The number of rows, and (row, value, sender) of each entry in their order: three arrays."""
    rows = _list(_any_list)(value, subject)
    entries = list(chain.from_iterable(rows))
    if not ({*map(type, entries)} <= {list} and {*map(len, entries)} <= {2}):
        raise CheckError(f"an entry of {subject} is a pair")
    numbers = list(chain.from_iterable(entries))
    if not {*map(type, numbers)} <= {int} or (
        numbers and not 0 <= min(numbers) <= max(numbers) < MOST
    ):
        raise CheckError(f"an entry of {subject} is two integers of at least 0 and below 2**63")
    row = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    return len(rows), (row, *np.array(numbers, np.int64).reshape(-1, 2).T)


_LINK: dict[str, Reader] = {"latency": _number, "bandwidth": _number}
_PROFILE = _object(
    {"name": _text, **_LINK, "exchange": _text},
    {
        "axes": _mapping(_object(_LINK)),
        "levels": _list(
            _object(
                {"devices": _count, **_LINK},
                {"torus": _list(_count, MAX_AXES), "wraps": _count, "hop": _number},
            ),
            MAX_AXES,
        ),
        "efficiency": _mapping(_number),
        "source": _text,
    },
)
_MESH = _object({"axes": _list(_tuple(_text, _count), MAX_AXES), "devices": _devices})
_FIGURES = dict.fromkeys(
    (
        "num_collectives",
        "received_bytes",
        "sent_bytes",
        "lower_bound_bytes",
        "peak_tile_bytes",
        "live_bytes",
    ),
    _integer,
)
_FIRST_PLAN: dict[str, Reader] = {
    "format": _text,
    "strategy": _text,
    "mesh": _MESH,
    "dst_mesh": _or_null(_MESH),
    "src": _text,
    "dst": _text,
    "steps": _any_list,
    **_FIGURES,
    "seconds": _number,
}
_PLAN = {**_FIRST_PLAN, "profile": _PROFILE}
_OPTIONAL = {"memory_limit": _integer, "padded_shape": _list(_count)}

_DIGITS = _list(_device_digit)
_PLACEMENTS = _list(_tuple(_device_digit, _index_digit))
_PAIRS = _list(_tuple(_device_digit, _device_digit))
_STEP: dict[str, Reader] = {
    "collective": _text,
    "axes": _list(_text),
    "type": _text,
    "local_shape": _list(_integer),
    "received_bytes": _integer,
    "sent_bytes": _integer,
    "live_bytes": _integer,
}
_PERMUTE_TABLE: dict[str, Reader] = {
    "axes": _DIGITS,
    "sources": _list(_count),
    "placements": _PLACEMENTS,
}
_ROUTING_TABLE = _object({"axes": _DIGITS, "owners": _DIGITS, "rows": _rows})
_ONLY_EXCHANGE: dict[str, Reader] = {
    "tables": _list(_ROUTING_TABLE),
    "onto": _text,
    "blocks": _text,
}
_COLLECTIVES: dict[str, dict[str, Reader]] = {
    "dynamic_slice": {"placements": _PLACEMENTS},
    "all_gather": {"placements": _PLACEMENTS},
    "all_to_all": {"moves": _list(_tuple(_device_digit, _index_digit, _index_digit))},
    "collective_permute": {"routes": _PAIRS},
    "reduce_scatter": {"placements": _PLACEMENTS},
    "all_reduce": {"digits": _DIGITS},
    "exchange": {"placements": _PLACEMENTS, "replicas": _PAIRS},
    "replicated_to_partial": {"reduction": _text, "digits": _DIGITS},
    "sharded_to_partial": {"reduction": _text, "placements": _PLACEMENTS},
}
