"""Plans as JSON, format redistrib-plan/2; version 1, which names no profile, is read too.

A step carries what defines it as maps of digits: `placements` as [device digit, index digit],
`moves` as [device digit, source index digit, target index digit], `routes` and `replicas` as pairs
of device digits, all written `x:(pre)size` and `0:(pre)size`; tables only where no digits match.
An exchange of uneven types has `blocks`, the type after it, instead. With `padded_shape`, steps are
of the array padded to it.
The devices of a mesh are a list of ids by position, null for 0, 1, 2, ..., or {"first": 64} for
many that follow one by one. Types are on `mesh`, and on `dst_mesh` from the exchange on that says
`"onto": "dst_mesh"`.
"""

from __future__ import annotations

import json
from typing import Any

from redistrib.errors import RedistribError
from redistrib.synth.plan.collectives import BY_NAME, Collective
from redistrib.synth.plan.fields import (
    REQUIRED,
    read_count,
    read_counts,
    read_items,
    read_list,
    read_object,
    read_text,
    shown,
    write_fields,
)
from redistrib.synth.plan.priced_steps import PricedSteps
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh, check_enumerable
from redistrib.types.notation import format_factor
from redistrib.types.padding import common_padding, padded

FORMAT = "redistrib-plan/2"
MAX_LISTED = 64  # devices in a row whose ids are listed
READABLE = ("redistrib-plan/1", FORMAT)
FIGURES = (
    "received_bytes",
    "sent_bytes",
    "lower_bound_bytes",
    "peak_tile_bytes",
    "live_bytes",
    "num_collectives",
    "seconds",
)
PLAN_KEYS = ("format", "strategy", "mesh", "dst_mesh", "src", "dst", "steps", *FIGURES)
STEP_KEYS = (
    "collective",
    "axes",
    "type",
    "local_shape",
    "received_bytes",
    "sent_bytes",
    "live_bytes",
)


def write_plan(plan: PricedSteps) -> str:
    """The JSON text of a plan."""
    mesh = plan.src.mesh
    steps: list[dict[str, Any]] = []
    for step, t, traffic, live in zip(
        plan.steps, plan.types[1:], plan.traffic, plan.live_bytes_per_step, strict=True
    ):
        steps.append(
            {
                "collective": step.collective,
                "axes": [format_factor(device, t.mesh) for device in step.axes],
                "type": str(t),
                "local_shape": list(t.tile_shape),
                "received_bytes": traffic.received_bytes,
                "sent_bytes": traffic.sent_bytes,
                "live_bytes": live,
                **write_fields(step.fields, step),
            }
        )
    return json.dumps(
        {
            "format": FORMAT,
            "strategy": plan.strategy,
            "mesh": _mesh_data(mesh),
            "dst_mesh": None if plan.dst.mesh == mesh else _mesh_data(plan.dst.mesh),
            "src": str(plan.src),
            "dst": str(plan.dst),
            "steps": steps,
            "received_bytes": plan.received_bytes,
            "sent_bytes": plan.sent_bytes,
            "lower_bound_bytes": plan.lower_bound_bytes,
            "peak_tile_bytes": plan.peak_tile_bytes,
            "live_bytes": plan.live_bytes,
            "num_collectives": plan.num_collectives,
            "seconds": plan.seconds,
            "profile": plan.profile.to_data(),
            **({} if plan.memory_limit is None else {"memory_limit": plan.memory_limit}),
            **({} if plan.padded_shape is None else {"padded_shape": list(plan.padded_shape)}),
        }
    )


def read_plan(text: str) -> dict[str, Any]:
    """What `make_plan` takes, by name, to make the plan in a JSON text.

    Raises RedistribError if the text is no JSON, of another format, incomplete or ill-typed.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RedistribError(f"a plan is JSON; line {error.lineno}: {error.msg}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise RedistribError(f"a plan is JSON; the text is not: {error}") from error
    check_format(data)
    first = data["format"] == READABLE[0]
    keys = PLAN_KEYS if first else (*PLAN_KEYS, "profile")
    read_object(data, "a plan", keys, ("memory_limit", "padded_shape"))
    mesh = _read_mesh(data["mesh"], "mesh")
    dst_mesh = None if data["dst_mesh"] is None else _read_mesh(data["dst_mesh"], "dst_mesh")
    src = ArrayType.parse(read_text(data["src"], "src"), mesh)
    dst = ArrayType.parse(read_text(data["dst"], "dst"), dst_mesh or mesh)
    shape = data.get("padded_shape")
    shape = None if shape is None else read_counts(shape, "padded_shape")
    if shape is not None and shape != common_padding(src, dst):
        raise RedistribError(f"padded_shape is one that both ends have; got {shown(shape)}")
    steps: list[Collective] = []
    current = src if shape is None else padded(src, shape)
    for number, item in enumerate(read_list(data["steps"], "steps")):
        try:
            steps.append(_read_step(item, None if dst_mesh == mesh else dst_mesh))
            current = steps[-1].apply(current)
        except RedistribError as error:
            raise RedistribError(f"step {number}: {error}", step=number) from error
    limit = data.get("memory_limit")
    limit = None if limit is None else read_count(limit, "memory_limit")
    profile = DEFAULT_PROFILE if first else Profile.from_data(data["profile"])
    return {
        "src": src,
        "dst": dst,
        "strategy": read_text(data["strategy"], "strategy"),
        "steps": steps,
        "profile": profile,
        "memory_limit": limit,
        "padded_shape": shape,
    }


def check_format(data: object) -> dict[str, Any]:
    """The data of a plan in a format that is read. Raises RedistribError for any other."""
    format_ = data.get("format") if isinstance(data, dict) else type(data).__name__
    if not isinstance(data, dict) or format_ not in READABLE:
        raise RedistribError(
            f"a plan has the format {' or '.join(map(repr, READABLE))}; got {format_!r}",
            format=format_,
        )
    return data


def _mesh_data(mesh: Mesh) -> dict[str, Any]:
    devices: Any = None if mesh.devices is None else list(mesh.devices)
    if devices and mesh.first_id is not None and len(devices) > MAX_LISTED:
        devices = {"first": mesh.first_id}
    return {"axes": [list(axis) for axis in mesh.axes], "devices": devices}


def _read_mesh(value: Any, label: str) -> Mesh:
    read_object(value, label, ("axes", "devices"))
    axes = [read_items(item, label, 2) for item in read_list(value["axes"], label)]
    sizes = [(read_text(name, label), read_count(size, label)) for name, size in axes]
    devices = value["devices"]
    if isinstance(devices, dict):
        first = read_count(read_object(devices, "devices", ("first",))["first"], label)
        check_enumerable(Mesh(sizes).num_devices)
        devices = range(first, first + Mesh(sizes).num_devices)
    elif devices is not None:
        devices = read_counts(devices, label)
    return Mesh(sizes, devices=devices)


def _read_step(value: Any, dst_mesh: Mesh | None) -> Collective:
    name = value.get("collective") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in BY_NAME:
        raise RedistribError(
            f"a collective is one of {', '.join(BY_NAME)}; got {shown(name)}", collective=name
        )
    kind = BY_NAME[name]
    required = [field.key for field in kind.fields if field.default is REQUIRED]
    optional = [field.key for field in kind.fields if field.default is not REQUIRED]
    return kind.from_data(read_object(value, name, (*STEP_KEYS, *required), optional), dst_mesh)
