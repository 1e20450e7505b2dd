"""Links and levels as tables of TOML and objects of JSON (docs/oracle.md has the format).

>>> level = read_level({"devices": 16, "latency": 1e-6, "bandwidth": 1e11, "torus": [4, 4]})
>>> level.torus, write_level(level)["torus"]
((4, 4), [4, 4])
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Any

from redistrib.errors import RedistribError
from redistrib.synth.plan.links import Level, Link

LINK_KEYS = ("latency", "bandwidth")
TORUS_KEYS = ("torus", "wraps", "hop")


def check_keys(
    label: str, data: Mapping[str, Any], known: Iterable[str], needed: Iterable[str] = ()
) -> None:
    """Raise RedistribError where a key is missing, or one is not known."""
    if missing := [key for key in needed if key not in data]:
        raise RedistribError(f"{label} has {' and '.join(missing)}")
    if unknown := [key for key in data if key not in known]:
        raise RedistribError(f"{label} has the keys {', '.join(known)}; got {unknown[0]!r}")


def read_number(key: str, value: object) -> float:
    """A finite number. Raises RedistribError for anything else."""
    try:
        number = float(value) if isinstance(value, int | float) else inf
    except OverflowError:  # an integer above all floats
        number = inf
    if isinstance(value, bool) or not isfinite(number):
        raise RedistribError(f"{key} is a finite number; got {value!r}")
    return number


def read_link(label: str, data: object, also: tuple[str, ...] = ()) -> Link:
    """The link in a table that has the keys `also` as well. Raises RedistribError."""
    if not isinstance(data, dict):
        raise RedistribError(f"{label} is a table with latency and bandwidth; got {data!r}")
    check_keys(label, data, (*LINK_KEYS, *also), (*LINK_KEYS, *also))
    latency, bandwidth = (read_number(key, data[key]) for key in LINK_KEYS)
    return Link(latency, bandwidth)


def read_level(data: Any) -> Level:
    """The level in a table. Raises RedistribError."""
    if not isinstance(data, dict):
        raise RedistribError(f"a level is a table; got {data!r}")
    fields = {key: data[key] for key in TORUS_KEYS if key in data}
    link_data = {key: data[key] for key in data if key not in fields}
    link = read_link("a level", link_data, ("devices",))
    if not isinstance(fields.get("torus", []), list):
        raise RedistribError(f"a torus is a list of numbers; got {data['torus']!r}")
    if "hop" in fields:
        fields["hop"] = read_number("hop", data["hop"])
    return Level(data["devices"], link, **fields | {"torus": tuple(fields.get("torus", ()))})


def write_level(level: Level) -> dict[str, Any]:
    """A level as `read_level` reads it; what it does not use is left out."""
    data: dict[str, Any] = {"devices": level.devices, **write_link(level.link)}
    if level.torus:
        data["torus"] = list(level.torus)
    if level.wraps != 1:
        data["wraps"] = level.wraps
    return data | ({"hop": level.hop} if level.hop else {})


def write_link(link: Link) -> dict[str, float]:
    """A link as `read_link` reads it."""
    return {"latency": link.latency, "bandwidth": link.bandwidth}
