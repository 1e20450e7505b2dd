"""Plans as JSON, format redistrib-plan/2; version 1, which names no profile, is read too.

A step carries what defines it as maps of digits: `placements` as [device digit, index digit],
`moves` as [device digit, source index digit, target index digit], `routes` and `replicas` as pairs
of device digits, all written `x:(pre)size` and `0:(pre)size`; tables only where no digits match.
Types are on `mesh`, and on `dst_mesh` from the exchange on that says `"onto": "dst_mesh"`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from redistrib.errors import RedistribError
from redistrib.synth.plan.collectives import (
    AllGather,
    AllReduce,
    AllToAll,
    Collective,
    CollectivePermute,
    DynamicSlice,
    Exchange,
    Move,
    ReduceScatter,
    ReplicatedToPartial,
    ShardedToPartial,
)
from redistrib.synth.plan.data import Plan, make_plan
from redistrib.synth.plan.profile import DEFAULT_PROFILE, Profile
from redistrib.synth.plan.tables import PermuteTable, RoutingTable
from redistrib.types.array_type import ArrayType
from redistrib.types.digits import (
    DeviceDigit,
    Placement,
    parse_device_digit,
    parse_index_digit,
)
from redistrib.types.mesh import Mesh

FORMAT = "redistrib-plan/2"
READABLE = ("redistrib-plan/1", FORMAT)


def plan_to_json(plan: Plan) -> str:
    """The JSON text of a plan."""
    mesh = plan.src.mesh
    steps: list[dict[str, Any]] = []
    for step, t, traffic, live in zip(
        plan.steps, plan.types[1:], plan.traffic, plan.live_bytes_per_step, strict=True
    ):
        steps.append(
            {
                "collective": step.collective,
                "axes": [_axis_text(device, t.mesh) for device in step.axes],
                "type": str(t),
                "local_shape": list(t.tile_shape),
                "received_bytes": traffic.received_bytes,
                "sent_bytes": traffic.sent_bytes,
                "live_bytes": live,
                **_step_data(step),
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
        }
    )


def plan_from_json(text: str) -> Plan:
    """The plan of a JSON text; its figures are computed anew.

    A plan of version 1 is priced under the default profile.

    Raises RedistribError if the text is no JSON, of another format, incomplete or ill-typed.
    """
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        raise RedistribError(f"a plan is JSON; line {error.lineno}: {error.msg}") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise RedistribError(f"a plan is JSON; the text is not: {error}") from error
    check_format(data)
    try:
        mesh = _mesh(data["mesh"])
        dst_mesh = mesh if data["dst_mesh"] is None else _mesh(data["dst_mesh"])
        src = ArrayType.parse(data["src"], mesh)
        dst = ArrayType.parse(data["dst"], dst_mesh)
        steps = [_step(step, dst_mesh) for step in data["steps"]]
        limit = None if data.get("memory_limit") is None else int(data["memory_limit"])
        first = data["format"] == READABLE[0]
        profile = DEFAULT_PROFILE if first else Profile.from_data(data["profile"])
        plan = make_plan(src, dst, str(data["strategy"]), steps, profile, limit)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise RedistribError(
            f"the plan is incomplete or malformed: {type(error).__name__}: {error}"
        ) from error
    return plan


def check_format(data: object) -> dict[str, Any]:
    """The data of a plan in a format that is read. Raises RedistribError for any other."""
    given = data.get("format") if isinstance(data, dict) else type(data).__name__
    if not isinstance(data, dict) or given not in READABLE:
        raise RedistribError(
            f"a plan has the format {' or '.join(map(repr, READABLE))}; got {given!r}", format=given
        )
    return data


def _mesh_data(mesh: Mesh) -> dict[str, Any]:
    return {
        "axes": [list(axis) for axis in mesh.axes],
        "devices": None if mesh.devices is None else list(mesh.devices),
    }


def _mesh(data: dict[str, Any]) -> Mesh:
    return Mesh([(name, size) for name, size in data["axes"]], devices=data["devices"])


def _axis_text(device: DeviceDigit, mesh: Mesh) -> str:
    from redistrib.types.notation import format_factor

    return format_factor(device, mesh)


def _pairs(items: Sequence[Sequence[object]]) -> list[list[str]]:
    return [[str(entry) for entry in item] for item in items]


def _step_data(step: Collective) -> dict[str, Any]:
    match step:
        case DynamicSlice() | AllGather() | ReduceScatter():
            return {"placements": _pairs(step.placements)}
        case AllToAll():
            return {"moves": _pairs([(m.device, m.source, m.target) for m in step.moves])}
        case CollectivePermute(routes, table):
            if table is None:
                return {"routes": _pairs(routes)}
            return {
                "table": {
                    "axes": [str(axis) for axis in table.axes],
                    "sources": list(table.sources),
                    "placements": _pairs(table.placements),
                }
            }
        case AllReduce():
            return {"digits": [str(d) for d in step.axes]}
        case Exchange():
            data: dict[str, Any] = {
                "placements": _pairs(step.placements),
                "replicas": _pairs(step.replicas),
            }
            if step.tables:
                data["tables"] = [
                    {
                        "axes": [str(axis) for axis in table.axes],
                        "owners": [str(owner) for owner in table.owners],
                        "rows": [[list(entry) for entry in row] for row in table.rows],
                    }
                    for table in step.tables
                ]
            if step.mesh is not None:
                data["onto"] = "dst_mesh"
            return data
        case ReplicatedToPartial():
            return {"reduction": step.reduction, "digits": [str(d) for d in step.axes]}
        case ShardedToPartial():
            return {"reduction": step.reduction, "placements": _pairs(step.placements)}


def _step(data: dict[str, Any], dst_mesh: Mesh) -> Collective:
    match data["collective"]:
        case "dynamic_slice":
            return DynamicSlice(_placements(data["placements"]))
        case "all_gather":
            return AllGather(_placements(data["placements"]))
        case "all_to_all":
            return AllToAll(
                tuple(
                    Move(parse_device_digit(d), parse_index_digit(a), parse_index_digit(b))
                    for d, a, b in data["moves"]
                )
            )
        case "collective_permute" if "table" in data:
            table = data["table"]
            return CollectivePermute(
                (),
                PermuteTable(
                    tuple(parse_device_digit(d) for d in table["axes"]),
                    tuple(int(a) for a in table["sources"]),
                    _placements(table["placements"]),
                ),
            )
        case "collective_permute":
            return CollectivePermute(_digit_pairs(data["routes"]))
        case "reduce_scatter":
            return ReduceScatter(_placements(data["placements"]))
        case "all_reduce":
            return AllReduce(tuple(parse_device_digit(d) for d in data["digits"]))
        case "exchange":
            return Exchange(
                _placements(data["placements"]),
                _digit_pairs(data["replicas"]),
                tuple(
                    RoutingTable(
                        tuple(parse_device_digit(d) for d in table["axes"]),
                        tuple(parse_device_digit(d) for d in table["owners"]),
                        tuple(tuple((int(a), int(b)) for a, b in row) for row in table["rows"]),
                    )
                    for table in data.get("tables", ())
                ),
                dst_mesh if "onto" in data else None,
            )
        case "replicated_to_partial":
            digits = tuple(parse_device_digit(d) for d in data["digits"])
            return ReplicatedToPartial(digits, data["reduction"])
        case "sharded_to_partial":
            return ShardedToPartial(_placements(data["placements"]), data["reduction"])
        case other:
            raise ValueError(f"unknown collective {other!r}")


def _placements(items: list[list[str]]) -> tuple[Placement, ...]:
    return tuple((parse_device_digit(d), parse_index_digit(i)) for d, i in items)


def _digit_pairs(items: list[list[str]]) -> tuple[tuple[DeviceDigit, DeviceDigit], ...]:
    return tuple((parse_device_digit(a), parse_device_digit(b)) for a, b in items)
