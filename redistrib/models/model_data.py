"""Plans of whole models as JSON data, format redistrib-model/1.

Types stand once, with the names of the arrays that have them; the weight map is its text. What
follows from these, the moves and their schedules, is derived anew by whoever reads it, and the
figures of the plan must come out as they stand there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redistrib.errors import RedistribError
from redistrib.models.figures import ModelFigures
from redistrib.models.segments import AnyType, parse_any
from redistrib.text import is_number
from redistrib.types.mesh import Mesh

FORMAT = "redistrib-model/1"
MAX_DEVICES = 1 << 20
MAX_DIGITS = 20
FIGURES = (
    "received_bytes",
    "sent_bytes",
    "lower_bound_bytes",
    "peak_bytes",
    "least_budget_bytes",
    "seconds",
)
KINDS = {
    "format": str,
    "meshes": list,
    "src": list,
    "dst": list,
    "weights": str,
    "order": list,
    "keep_sources": bool,
    "into_targets": bool,
    "memory_budget": int | None,
    "least_part": int,
    "profile": dict,
    "device_of": list,
    **dict.fromkeys(FIGURES, int | float),
}


def moves_data(plan: ModelFigures) -> dict[str, Any]:
    """The data of a plan."""
    meshes = list(dict.fromkeys(t.mesh for t in (*plan.src.values(), *plan.dst.values())))
    number = {mesh: n for n, mesh in enumerate(meshes)}
    return {
        "format": FORMAT,
        "meshes": [
            {"axes": [list(axis) for axis in mesh.axes], "devices": devices_text(mesh.ids)}
            for mesh in meshes
        ],
        "src": _arrays(plan.src, number),
        "dst": _arrays(plan.dst, number),
        "weights": str(plan.weights),
        "order": [move.target for move in plan.moves],
        "keep_sources": plan.keep_sources,
        "into_targets": plan.into_targets,
        "memory_budget": plan.memory_budget,
        "least_part": plan.least_part,
        "profile": plan.profile.to_data(),
        "device_of": [list(pair) for pair in sorted(plan.device_of.items())],
        **{name: getattr(plan, name) for name in FIGURES},
    }


def check_data(text: str) -> dict[str, Any]:
    """The data in a JSON text, with the keys of a plan and values of their kinds.

    Raises RedistribError for any other text.
    """
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise RedistribError(f"a model plan is JSON; the text is not: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        format_ = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RedistribError(
            f"a model plan has the format {FORMAT!r}; got {format_!r}", format=format_
        )
    if data.keys() != KINDS.keys():
        odd = min(data.keys() ^ KINDS.keys())
        raise RedistribError(f"a model plan has the keys {', '.join(KINDS)}; see {odd!r}")
    for key, kind in KINDS.items():
        if not isinstance(data[key], kind) or (kind is not bool and isinstance(data[key], bool)):
            raise RedistribError(f"{key} of a model plan is malformed; got {data[key]!r:.60}")
    pairs = data["device_of"]
    right = all(_is_list_of(pair, int) and len(pair) == 2 for pair in pairs)
    if not right or len({device for device, _ in pairs}) < len(pairs):
        raise RedistribError(
            f"device_of of a model plan has pairs of device ids; got {pairs!r:.60}"
        )
    return data


def check_figures(data: Mapping[str, Any], plan: ModelFigures) -> None:
    """Raise RedistribError unless a plan has the figures and the order that stand in its data."""
    derived = {name: getattr(plan, name) for name in FIGURES}
    derived["order"] = [move.target for move in plan.moves]
    for name, value in derived.items():
        if data[name] != value:
            raise RedistribError(f"{name} of the model plan is {value}; the text has {data[name]}")


def parse_meshes(data: Sequence[Any]) -> list[Mesh]:
    """The meshes of a plan. Raises RedistribError."""
    meshes = []
    for mesh in data:
        axes = mesh.get("axes") if isinstance(mesh, dict) else None
        if not isinstance(axes, list) or not all(_is_list_of(a, str | int) for a in axes):
            raise RedistribError(f"a mesh of a model plan has axes and devices; got {mesh!r:.60}")
        if mesh.keys() != {"axes", "devices"} or any(len(axis) != 2 for axis in axes):
            raise RedistribError(f"a mesh of a model plan has axes and devices; got {mesh!r:.60}")
        meshes.append(Mesh([(n, k) for n, k in axes], devices=parse_devices(mesh["devices"])))
    return meshes


def parse_types(data: Sequence[Any], meshes: Sequence[Mesh]) -> dict[str, AnyType]:
    """The types of arrays by name, from runs of arrays of one type. Raises RedistribError."""
    types: dict[str, AnyType] = {}
    for run in data:
        right = isinstance(run, dict) and run.keys() == {"type", "mesh", "names"}
        right = right and isinstance(run["type"], str) and _is_list_of(run["names"], str)
        if not right or run["mesh"] not in range(len(meshes)) or types.keys() & set(run["names"]):
            raise RedistribError(
                f"arrays of a model plan have a type, the number of a mesh, and names of their "
                f"own; got {run!r:.60}"
            )
        types |= dict.fromkeys(run["names"], parse_any(run["type"], meshes[run["mesh"]]))
    return types


def _is_list_of(value: object, kind: Any) -> bool:
    return isinstance(value, list) and all(
        isinstance(entry, kind) and not isinstance(entry, bool) for entry in value
    )


def devices_text(ids: Sequence[int]) -> str | list[int]:
    """Device ids as `first:end` where they follow each other, else as a list."""
    if list(ids) == list(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}:{ids[0] + len(ids)}"
    return list(ids)


def parse_devices(devices: object) -> list[int]:
    """The ids written as `first:end` or as a list. Raises RedistribError for anything else."""
    if isinstance(devices, str):
        first, colon, end = devices.partition(":")
        numbers = colon and is_number(first) and is_number(end) and len(first + end) < MAX_DIGITS
        if numbers and 0 < int(end) - int(first) <= MAX_DEVICES:
            return list(range(int(first), int(end)))
    elif isinstance(devices, list) and all(type(device) is int for device in devices):
        return devices
    raise RedistribError(
        f'devices are "first:end" or a list of ids, {MAX_DEVICES} at most; got {devices!r}'
    )


def _arrays(types: Mapping[str, AnyType], number: Mapping[Mesh, int]) -> list[dict[str, Any]]:
    """Runs of arrays of one type, so that the order of names stays."""
    runs: list[dict[str, Any]] = []
    for name, t in types.items():
        entry = {"type": str(t), "mesh": number[t.mesh]}
        if not runs or {**runs[-1], "names": None} != {**entry, "names": None}:
            runs.append({**entry, "names": []})
        runs[-1]["names"].append(name)
    return runs
