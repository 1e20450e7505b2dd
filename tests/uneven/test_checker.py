"""The checker of uneven plans: every number and text of a plan that is changed is found out."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from typing import Any

import pytest

import redistrib as rd

MESH, OTHER = rd.Mesh(x=4, y=2), rd.Mesh({"u": 3}, devices=[9, 1, 4])
PLANS = {
    "padded": ("f32[10{x}:ceil, 8]", "f32[10, 8{x}]", MESH),
    "blocks": ("f32[10{x}:ceil, 8{y}]", "f32[10{y,x}:nested, 8]", MESH),
    "summed": ("f32[10{x}:ceil] sum{y}", "f32[10{x}:balanced]", MESH),
    "across": ("f32[10{y}:sizes(3,7)]", "f32[10{u}:balanced]", OTHER),
}


def _plan(name: str) -> dict[str, Any]:
    src, dst, mesh = PLANS[name]
    ends = rd.ArrayType.parse(src, MESH), rd.ArrayType.parse(dst, mesh)
    found = rd.plan(*ends, strategy="auto" if name == "padded" else "direct")
    assert (found.padded_shape is not None) == (name == "padded")
    data: dict[str, Any] = json.loads(found.to_json())
    rd.check(data)
    return data


def _changed(data: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The data with one number changed, one entry left out, or one layout replaced."""
    for key, value in data.items():
        # From another source the same steps may lead to the target, at the same figures.
        if key not in ("format", "profile", "mesh", "dst_mesh", "strategy", "src"):
            yield from _with(data, [key], value)
    if "padded_shape" in data:
        yield "not padded", {key: data[key] for key in data if key != "padded_shape"}


def _with(data: dict[str, Any], path: list[Any], value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, list):
        for at, entry in enumerate(value):
            yield from _with(data, [*path, at], entry)
    elif isinstance(value, dict):
        for key, entry in value.items():
            yield from _with(data, [*path, key], entry)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        for other in (value + 1, value * 2 + 1, max(value - 1, 0)):
            if other != value:
                yield f"{path} {value} -> {other}", _replaced(data, path, other)
    elif isinstance(value, str) and "[" in value:
        for old, new in ((":ceil", ":balanced"), (":nested", ":balanced"), (":balanced", ":ceil")):
            if old in value:
                yield f"{path} {old} -> {new}", _replaced(data, path, value.replace(old, new))
    elif isinstance(value, str) and ":(" in value:
        yield f"{path} {value} -> y:(1)2", _replaced(data, path, "y:(1)2")


def _replaced(data: dict[str, Any], path: list[Any], value: Any) -> dict[str, Any]:
    result = copy.deepcopy(data)
    place: Any = result
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    return result


@pytest.mark.parametrize("name", PLANS)
def test_every_change_is_found(name: str) -> None:
    data = _plan(name)
    changes = list(_changed(data))
    assert len(changes) > 15
    for what, changed in changes:
        if changed == data:
            continue
        try:
            rd.check(changed)
        except rd.CheckError:
            continue
        raise AssertionError(what)


def test_an_even_plan_is_not_padded_and_exchanges_no_blocks() -> None:
    mesh = rd.Mesh(x=4)
    plan = json.loads(rd.plan(("f32[8{x}, 8]", mesh), "f32[8, 8{x}]", strategy="direct").to_json())
    rd.check(plan)
    with pytest.raises(rd.CheckError, match="what is padded is uneven"):
        rd.check({**plan, "padded_shape": [8, 8]})
    step = {**plan["steps"][0], "blocks": "f32[8, 8{x}]", "replicas": []}
    with pytest.raises(rd.CheckError, match="are uneven, of one array"):
        rd.check({**plan, "steps": [step]})


def test_a_padded_type_is_the_real_one_when_it_is_cut_off() -> None:
    """Blocks of 2 and of 1 pad to 8 and to 4; the figures of both gathers are the same."""
    mesh = rd.Mesh(x=4)
    wide = rd.plan(("f32[2{x,_2}:ceil]", mesh), "f32[2]", strategy="collectives", memory_limit=99)
    data = json.loads(wide.to_json())
    rd.check(data)
    with pytest.raises(rd.CheckError, match="padded and cut off"):
        rd.check({**data, "src": "f32[2{x}:ceil]"})
