"""Real problems from public sources, and Shardy's own test cases with the sequence it expects.

data/real_world.json: layouts that programs really move between, each with its source.
data/shardy.json: openxla/shardy a0277a83 (Apache-2.0), reshard_to_collectives*.mlir, the evenly
divisible cases on one mesh, with the types that its expected sequence passes through.
"""

from __future__ import annotations

import json
from math import lcm, prod
from pathlib import Path
from typing import Any

import pytest

import redistrib as rd
from redistrib.synth.plan.data import make_plan
from redistrib.types.refinement import refine
from tests.verify import verify_bounds, verify_semantics

DATA = Path(__file__).parents[1] / "data"
REAL_WORLD: list[dict[str, Any]] = json.loads((DATA / "real_world.json").read_text())
SHARDY: list[dict[str, Any]] = json.loads((DATA / "shardy.json").read_text())


def parse(case: dict[str, Any]) -> tuple[rd.ArrayType, rd.ArrayType]:
    mesh = rd.Mesh(case["mesh"])
    return rd.ArrayType.parse(case["src"], mesh), rd.ArrayType.parse(case["dst"], mesh)


def shrunk(plan: rd.Plan) -> rd.Plan:
    """The same steps over the smallest shape that has all their cuts, to run them in memory."""
    shape = []
    for dim in range(len(plan.src.shape)):
        ends = [i.end for t in plan.types for _, i in t.placements if i.dim == dim]
        shape.append(lcm(1, *ends))
    src, dst = (
        rd.ArrayType(t.mesh, t.dtype, shape, t.dims, t.partial, t.reduction)
        for t in (plan.src, plan.dst)
    )
    return make_plan(src, dst, plan.strategy, plan.steps)


@pytest.mark.parametrize("case", REAL_WORLD, ids=lambda case: case["id"])
@pytest.mark.parametrize("strategy", ["auto", "collectives", "direct"])
def test_real_world_cases_plan_and_run_right(case: dict[str, Any], strategy: str) -> None:
    src, dst = parse(case)
    plan = rd.plan(src, dst, strategy=strategy)
    rd.check(plan)
    if strategy != "auto":
        verify_bounds(plan, aligned=refine(src, dst).aligned)
    verify_semantics(shrunk(plan))


@pytest.mark.parametrize("case", SHARDY, ids=lambda case: case["name"])
def test_shardy_cases_cost_no_more_than_its_own_sequence(case: dict[str, Any]) -> None:
    src, dst = parse(case)
    plan = rd.plan(src, dst, strategy="collectives")
    rd.check(plan)
    verify_semantics(plan)
    collectives, received = shardy_cost(case, src)
    assert plan.num_collectives <= collectives
    assert plan.received_bytes <= received


def shardy_cost(case: dict[str, Any], src: rd.ArrayType) -> tuple[int, int]:
    """Collectives of the expected sequence, and what the worst device receives in it."""
    collectives = received = 0
    before = src
    for name, text, moved in case["expected"]:
        after = rd.ArrayType.parse(text, src.mesh)
        tile = before.tile_bytes
        match name:
            case "all_slice":
                pass
            case "all_gather":
                received += after.tile_bytes - tile
            case "collective_permute":
                received += tile
            case "all_to_all":
                group = prod(_size(axis, src.mesh) for axes in moved for axis in axes)
                received += tile - tile // group
            case _:
                raise AssertionError(name)
        collectives += name != "all_slice"
        before = after
    assert before == rd.ArrayType.parse(case["dst"], src.mesh)
    return collectives, received


def _size(axis: str, mesh: rd.Mesh) -> int:
    return int(axis.rpartition(")")[2]) if ":" in axis else mesh.axis_size(axis)
