"""What the runners are measured on: the survey of redistrib/demo/survey.py, and real programs.

The real ones are the demo's and those of workloads.json (name, source, mesh, both types), restated
on 16 devices at most: axes and dimensions are smaller, which axis owns which dimension is as in the
source. bf16 and f16 are restated as u16, because XLA on CPU widens the former before it moves them,
which says nothing about resharding.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

import redistrib as rd
from bench.problems import Problem
from redistrib.demo import workloads as demo
from redistrib.demo.survey import COUNTS, pairs
from redistrib.types.digits import DeviceDigit, Factor

SURVEY = tuple(COUNTS)
REAL = "real"
PERIOD = 65_521
RESTATED = Path(__file__).with_name("workloads.json")


@dataclass(frozen=True, slots=True)
class Workload:
    """One redistribution. `group` is "real" or "survey N" for N devices."""

    group: str
    name: str
    source: str
    src: rd.ArrayType
    dst: rd.ArrayType

    @property
    def devices(self) -> int:
        """How many devices."""
        return self.src.mesh.num_devices

    @property
    def request(self) -> dict[str, Any]:
        """What a worker is sent; `problem` is for those that do not know our types."""
        try:
            problem = asdict(problem_of(self.src, self.dst))
        except LookupError:
            problem = None
        return {
            "mesh": str(self.src.mesh),
            "src": str(self.src),
            "dst": str(self.dst),
            "itemsize": self.src.itemsize,
            "problem": problem,
        }


def parse_types(request: dict[str, Any]) -> tuple[rd.ArrayType, rd.ArrayType]:
    """The two types of a workload, from what a worker is sent."""
    mesh = rd.Mesh.parse(request["mesh"])
    return rd.ArrayType.parse(request["src"], mesh), rd.ArrayType.parse(request["dst"], mesh)


def problem_of(src: rd.ArrayType, dst: rd.ArrayType) -> Problem:
    """The layouts by numbers of axes. Raises LookupError unless whole axes own dimensions."""
    axes: list[Factor] = [DeviceDigit(name, 1, size) for name, size in src.mesh.axes]
    layouts = []
    for t in (src, dst):
        if t.partial or any(factor not in axes for dim in t.dims for factor in dim):
            raise LookupError("the layouts are not of whole axes")
        layouts.append(tuple(tuple(axes.index(digit) for digit in dim) for dim in t.dims))
    return Problem(tuple(size for _, size in src.mesh.axes), src.shape, *layouts)


def survey(devices: int, count: int | None, size: int) -> list[Workload]:
    """Seeded pairs on 8, 12 or 16 devices, the first `count`, on arrays of about `size` bytes."""
    result = []
    for number, pair in enumerate(pairs(devices, count)):
        mesh = rd.Mesh(pair.axes)
        src, dst = (
            rd.ArrayType(mesh, pair.dtype, pair.shape, dims) for dims in (pair.src, pair.dst)
        )
        name = f"survey {devices} #{number}"
        source = "redistrib/demo/survey.py"
        result.append(
            Workload(f"survey {devices}", name, source, grown(src, size), grown(dst, size))
        )
    return result


def real(size: int) -> list[Workload]:
    """The named workloads, on arrays of at least `size` bytes, at most twice that."""
    stated = [(w.name, w.source, w.mesh, w.src, w.dst) for w in demo.WORKLOADS]
    result = []
    restated = json.loads(RESTATED.read_text(encoding="utf-8"))
    for name, source, mesh_text, *texts in (*stated, *restated):
        mesh = rd.Mesh.parse(mesh_text)
        ends = (
            rd.ArrayType.parse(text.replace("bf16[", "u16[").replace("f16[", "u16["), mesh)
            for text in texts
        )
        result.append(Workload(REAL, name, source, *(grown(t, size) for t in ends)))
    return result


def array_of(t: rd.ArrayType) -> Any:
    """An array of a type whose elements repeat with a prime period, since every process makes one.

    No shape here has a stride that is a multiple of the period: a tile in a wrong place differs.
    """
    values = demo.array_of(rd.ArrayType(t.mesh, t.dtype, (PERIOD,), ((),)))
    return np.resize(values, t.shape)


def grown(t: rd.ArrayType, size: int) -> rd.ArrayType:
    """The same layout on an array whose largest dimension is doubled until it has `size` bytes."""
    shape = list(t.shape)
    dim = shape.index(max(shape))
    while t.itemsize * t.size * shape[dim] // t.shape[dim] < size:
        shape[dim] *= 2
    return rd.ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)
