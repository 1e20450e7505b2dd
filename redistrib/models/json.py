"""Plans of whole models as JSON, format redistrib-model/1.

Types stand once, with the names of the arrays that have them; the weight map is its text. What
follows from these, the moves and their schedules, is derived anew by whoever reads it, and the
figures of the plan must come out as they stand there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from redistrib.errors import RedistribError
from redistrib.models.plan import ModelPlan
from redistrib.models.planning import plan_model
from redistrib.models.segments import AnyType, SegmentedType
from redistrib.models.weight_map import WeightMap
from redistrib.synth.plan.profile import Profile
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

FORMAT = "redistrib-model/1"
MAX_DEVICES = 1 << 20
MAX_DIGITS = 20
FIGURES = ("received_bytes", "sent_bytes", "lower_bound_bytes", "peak_bytes", "least_budget_bytes")


def model_to_json(plan: ModelPlan) -> str:
    """The JSON text of a plan; the same for the same plan in every process."""
    meshes = list(dict.fromkeys(t.mesh for t in (*plan.src.values(), *plan.dst.values())))
    number = {mesh: n for n, mesh in enumerate(meshes)}
    return json.dumps(
        {
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
            "seconds": plan.seconds,
        }
    )


def model_from_json(text: str) -> ModelPlan:
    """The plan of a JSON text.

    Raises RedistribError if it is no such text, or its figures are not those of the plan.
    """
    try:
        data = json.loads(text)
    except (TypeError, ValueError, RecursionError) as error:
        raise RedistribError(f"a model plan is JSON; the text is not: {error}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        given = data.get("format") if isinstance(data, dict) else type(data).__name__
        raise RedistribError(f"a model plan has the format {FORMAT!r}; got {given!r}", format=given)
    known = {"format", "meshes", "src", "dst", "weights", "order", "keep_sources", "into_targets"}
    known |= {"memory_budget", "least_part", "profile", "device_of", "seconds", *FIGURES}
    if data.keys() != known:
        odd = min(data.keys() ^ known)
        raise RedistribError(f"a model plan has the keys {', '.join(sorted(known))}; see {odd!r}")
    try:
        meshes = [
            Mesh([tuple(a) for a in mesh["axes"]], devices=parse_devices(mesh["devices"]))
            for mesh in data["meshes"]
        ]
        plan = plan_model(
            _types(data["src"], meshes),
            _types(data["dst"], meshes),
            weights=WeightMap.parse(data["weights"]),
            memory_budget=data["memory_budget"],
            profile=Profile.from_data(data["profile"]),
            keep_sources=bool(data["keep_sources"]),
            into_targets=bool(data["into_targets"]),
            least_part=int(data["least_part"]),
            device_of={int(a): int(b) for a, b in data["device_of"]},
        )
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise RedistribError(
            f"the model plan is incomplete or malformed: {type(error).__name__}: {error}"
        ) from error
    derived = {name: getattr(plan, name) for name in (*FIGURES, "seconds")}
    derived["order"] = [move.target for move in plan.moves]
    for name, value in derived.items():
        if data[name] != value:
            raise RedistribError(f"{name} of the model plan is {value}; the text has {data[name]}")
    return plan


def devices_text(ids: Sequence[int]) -> str | list[int]:
    """Device ids as `first:end` where they follow each other, else as a list."""
    if list(ids) == list(range(ids[0], ids[0] + len(ids))):
        return f"{ids[0]}:{ids[0] + len(ids)}"
    return list(ids)


def parse_devices(given: object) -> list[int]:
    """The ids written as `first:end` or as a list. Raises RedistribError for anything else."""
    if isinstance(given, str):
        first, colon, end = given.partition(":")
        numbers = colon and first.isdecimal() and end.isdecimal() and len(first + end) < MAX_DIGITS
        if numbers and int(end) - int(first) <= MAX_DEVICES:
            return list(range(int(first), int(end)))
    elif isinstance(given, list) and all(type(device) is int for device in given):
        return given
    raise RedistribError(
        f'devices are "first:end" or a list of ids, {MAX_DEVICES} at most; got {given!r}'
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


def _types(runs: list[dict[str, Any]], meshes: list[Mesh]) -> dict[str, AnyType]:
    types: dict[str, AnyType] = {}
    for run in runs:
        text, mesh = run["type"], meshes[run["mesh"]]
        t = (SegmentedType if "|" in text else ArrayType).parse(text, mesh)
        types |= dict.fromkeys(run["names"], t)
    return types
