"""Types given as JAX gives them: shape, dtype and NamedSharding, real ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

import redistrib as rd
from redistrib.types.named_sharding import as_type

PROGRAM = """
import os
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"
import jax, numpy as np
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec as P
import redistrib as rd

mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("x", "y"))
turned = Mesh(np.array(jax.devices()).reshape(2, 4).T, ("y", "x"))
specs = (P("x", "y"), P(("y", "x")))
ends = [((8, 16), np.dtype("float32"), NamedSharding(mesh, spec)) for spec in specs]
print(rd.plan(*ends).src, rd.plan(*ends).dst, rd.cost(*ends).received_bytes)
print(rd.plan(ends[0], ((8, 16), "f32", NamedSharding(turned, P("x", "y")))).steps)
print(rd.cost_matrix(ends, ends).shape, rd.explain(*ends).plan == rd.plan(*ends))
explicit = AbstractMesh((2, 4), ("x", "y"), axis_types=(AxisType.Explicit,) * 2)
abstract = NamedSharding(explicit, P(None, "x", unreduced={"y"}))
print(rd.plan(((8, 16), "f32", abstract), ends[0]).src)
"""


def test_plans_between_named_shardings() -> None:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120, check=True
    )
    assert run.stdout.splitlines() == [
        "f32[8{x}, 16{y}] f32[8{y,x}, 16] 80",
        "()",
        "(2, 2) True",
        "f32[8, 16{x}] sum{y}",
    ]


@pytest.mark.parametrize("given", ["f32[8]", ((8,), "f32"), ((8,), "f32", "x")])
def test_what_is_no_type_is_refused(given: object) -> None:
    with pytest.raises(rd.LayoutError, match=r"NamedSharding\)?; got"):
        rd.plan(given, given)  # type: ignore[arg-type]
    t = rd.ArrayType.parse("f32[8]", rd.Mesh())
    assert as_type(t) is t
