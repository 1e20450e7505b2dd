"""Plans as StableHLO and as jax.lax text, run: all cases of programs_worker.py, in one process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import redistrib as rd
from redistrib.interop.programs.jax import plan_to_jax
from redistrib.interop.programs.sdy import plan_to_sdy
from redistrib.interop.programs.stablehlo import plan_to_stablehlo

JAX_PROGRAM = '''\
"""f32[8{x}, 8] -> f32[8, 8{x}] on the mesh x=2,y=4.

`redistribute` takes a device's tile to its new tile, inside shard_map over these axes.
"""

import jax
from jax import lax
from jax.sharding import PartitionSpec as P


def redistribute(tile):
    # all_to_all: f32[8{x}, 8]
    tile = tile.reshape((4, 2, 4))
    tile = tile.transpose((1, 0, 2))
    tile = lax.all_to_all(tile, ('x',), split_axis=0, concat_axis=0)
    tile = tile.reshape((8, 4))
    # f32[8, 8{x}]
    return tile


def compiled(mesh):
    program = jax.shard_map(
        redistribute, mesh=mesh, in_specs=P('x', None), out_specs=P(None, 'x'), check_vma=False
    )
    return jax.jit(program)'''

ROOT = Path(__file__).parents[2]
CASES = (
    "stablehlo_runs_like_the_simulator",
    "jax_programs_run_like_the_simulator",
    "a_jax_program_compiles_on_global_arrays",
)


@pytest.fixture(scope="module")
def outcome() -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-m", "tests.interop.programs_worker"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-4000:]
    found: dict[str, str] = json.loads(run.stdout)
    assert set(found) == set(CASES)
    return found


@pytest.mark.parametrize("case", CASES)
def test_program(case: str, outcome: dict[str, str]) -> None:
    assert outcome[case] == "", outcome[case]


@pytest.mark.parametrize("write", [plan_to_sdy, plan_to_stablehlo, plan_to_jax])
def test_an_exchange_has_no_word(write: object) -> None:
    mesh = rd.Mesh(x=2, y=3)
    src = rd.ArrayType.parse("f32[12{x}, 12{y}]", mesh)
    dst = rd.ArrayType.parse("f32[12{y}, 12{x}]", mesh)
    plan = rd.plan(src, dst, strategy="direct")
    with pytest.raises(rd.LayoutError, match="the strategy 'collectives' has none"):
        write(plan)  # type: ignore[operator]


def test_the_text_of_a_jax_program() -> None:
    mesh = rd.Mesh(x=2, y=4)
    src = rd.ArrayType.parse("f32[8{x}, 8]", mesh)
    dst = rd.ArrayType.parse("f32[8, 8{x}]", mesh)
    text = plan_to_jax(rd.plan(src, dst, strategy="collectives"))
    assert text == JAX_PROGRAM


def test_a_target_on_another_mesh_is_written_on_that_of_the_source() -> None:
    src = rd.ArrayType.parse("f32[8{x}, 8]", rd.Mesh(x=2, y=2))
    dst = rd.ArrayType.parse("f32[8, 8{z}]", rd.Mesh(z=4))
    plan = rd.plan(src, dst, strategy="collectives")
    assert "out_specs=P(None, ('x', 'y'))" in plan_to_jax(plan)
    assert "-> f32[8, 8{x,y}] on the mesh x=2,y=2" in plan_to_stablehlo(plan)


def test_the_text_of_a_stablehlo_program() -> None:
    mesh = rd.Mesh(x=2)
    src = rd.ArrayType.parse("f32[4] max{x}", mesh)
    dst = rd.ArrayType.parse("f32[4{x}]", mesh)
    text = plan_to_stablehlo(rd.plan(src, dst, strategy="collectives"))
    assert "replica_groups = dense<[[0, 1]]> : tensor<1x2xi64>" in text
    assert "stablehlo.maximum %a, %b : tensor<f32>" in text
