"""A plan as a Chrome trace: a track for each device, a slice for each step, memory as a counter.

The text opens in Perfetto and in chrome://tracing. Times are those that the plan estimates, in
microseconds; a step that takes no time is a slice of none.

>>> from redistrib.synth.planner.choose import plan
>>> from redistrib.types.array_type import ArrayType
>>> from redistrib.types.mesh import Mesh
>>> ends = (ArrayType.parse(text, Mesh(x=2)) for text in ("f32[8{x}]", "f32[8]"))
>>> [event["name"] for event in json.loads(to_trace(plan(*ends)))["traceEvents"] if "ts" in event]
['live bytes', 'all_gather', 'all_gather', 'live bytes']
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from redistrib.synth.plan.data import Plan
from redistrib.types.notation import format_factor

MAX_TRACKS = 64
"""Devices that have a track of their own; those after them do the same steps."""


def to_trace(plan: Plan) -> str:
    """The plan as the JSON text of a Chrome trace."""
    return json.dumps({"traceEvents": list(_events(plan)), "displayTimeUnit": "ns"})


def _events(plan: Plan) -> Iterator[dict[str, Any]]:
    title = {"name": f"{plan.src} -> {plan.dst}"}
    yield {"ph": "M", "name": "process_name", "pid": 0, "args": title}
    count = min(plan.src.mesh.num_devices, MAX_TRACKS)
    devices = list(range(count) if plan.src.mesh.devices is None else plan.src.mesh.devices[:count])
    for device in devices:
        named = {"name": f"device {device}"}
        yield {"ph": "M", "name": "thread_name", "pid": 0, "tid": device, "args": named}
    yield _live(0.0, plan.src.tile_bytes)
    start = 0.0
    for index, (step, seconds) in enumerate(zip(plan.steps, plan.seconds_per_step, strict=True)):
        about = {
            "axes": ", ".join(
                format_factor(digit, plan.types[index + 1].mesh) for digit in step.axes
            ),
            "type": str(plan.types[index + 1]),
            "received_bytes": plan.traffic[index].received_bytes,
            "sent_bytes": plan.traffic[index].sent_bytes,
        }
        for device in devices:
            yield {
                "ph": "X",
                "name": step.collective,
                "pid": 0,
                "tid": device,
                "ts": start * 1e6,
                "dur": seconds * 1e6,
                "args": about,
            }
        start += seconds
        yield _live(start, plan.live_bytes_per_step[index])


def _live(seconds: float, size: int) -> dict[str, Any]:
    """The memory alive on a device from a time on."""
    return {"ph": "C", "name": "live bytes", "pid": 0, "ts": seconds * 1e6, "args": {"bytes": size}}
