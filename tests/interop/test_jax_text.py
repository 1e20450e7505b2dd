"""What jax itself prints for random NamedShardings, in every notation that it has."""

from __future__ import annotations

import random
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax._src.interpreters import mlir
from jax.sharding import AbstractMesh, AxisType, NamedSharding

import redistrib as rd
from redistrib.interop import hlo, jax_text, shardy
from tests.generators import random_pair

PartitionSpec: Any = jax.sharding.PartitionSpec
MESH = rd.Mesh(x=2, y=4)


def sharding_of(t: rd.ArrayType) -> Any:
    """The NamedSharding of a type with whole axes."""
    names, sizes = zip(*t.mesh.axes, strict=True)
    kinds = (AxisType.Explicit,) * len(names)
    entries = [tuple(getattr(f, "axis", None) for f in dim) or None for dim in t.dims]
    unreduced = {digit.axis for digit in t.partial}
    spec = PartitionSpec(*entries, **({"unreduced": unreduced} if unreduced else {}))
    return NamedSharding(AbstractMesh(sizes, names, axis_types=kinds), spec)


def test_what_jax_prints_is_read() -> None:
    rng = random.Random(3)
    context = mlir.make_ir_context()
    seen = 0
    while seen < 300:
        t = random_pair(rng.choice)[0]
        try:
            jax_text.format_partition_spec(t)
        except rd.LayoutError:
            continue
        if not all(t.shape):
            continue  # jax keeps the axes of a dimension without elements
        seen += 1
        sharding = sharding_of(t)
        on = t.mesh, t.shape, t.dtype
        assert jax_text.parse_partition_spec(repr(sharding.spec), *on) == t
        assert jax_text.parse_named_sharding(repr(sharding), None, *on[1:]) == t
        assert jax_text.parse_abstract_mesh(repr(sharding.mesh)) == t.mesh
        assert hlo.parse_hlo(str(sharding._to_xla_hlo_sharding(len(t.shape))), *on) == t
        dtype = {"f64": "f32"}.get(t.dtype, t.dtype)
        aval = jax.core.ShapedArray(t.shape, jnp.dtype(rd.ArrayType(MESH, dtype, ()).numpy_dtype))
        aval = aval.update(sharding=sharding)
        narrow = rd.ArrayType(t.mesh, dtype, t.shape, t.dims, t.partial)
        assert jax_text.parse_aval(str(aval), t.mesh) == narrow
        assert jax_text.format_aval(narrow) == str(aval)
        with context:
            text = str(sharding._to_sdy_sharding(len(t.shape)).build({}))
        if not t.partial:  # which this conversion leaves out
            assert shardy.parse_sdy(text, *on) == t


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("P()", "f32[8, 8]"),
        ("PartitionSpec('x')", "f32[8{x}, 8]"),
        ("P(('y', 'x'), None)", "f32[8{y,x}, 8]"),
        ('P(None, ("x",),)', "f32[8, 8{x}]"),
        ("P('x', unreduced=frozenset({'y'}))", "f32[8{x}, 8] sum{y}"),
        ("P('x', reduced={'y'})", "f32[8{x}, 8]"),
    ],
)
def test_ways_to_write_a_spec(text: str, expected: str) -> None:
    assert str(jax_text.parse_partition_spec(text, MESH, (8, 8), "f32")) == expected


def test_a_sharding_is_read_on_the_devices_of_the_given_mesh() -> None:
    mesh = rd.Mesh({"x": 2, "y": 4}, devices=range(8)[::-1])
    text = (
        "NamedSharding(mesh=Mesh('x': 2, 'y': 4, axis_types=(Explicit, Explicit)), "
        "spec=P('x', 'y'), memory_kind=device)"
    )
    assert jax_text.parse_named_sharding(text, mesh, (8, 8), "f32").mesh == mesh


@pytest.mark.parametrize(
    "text",
    [
        "Mesh('x': 2, 'y': 4, axis_types=(Explicit, Manual))",
        "Mesh(axis_sizes=(2, 4), axis_names=('x', 'y'), axis_types=(Auto, Auto))",
        "AbstractMesh('x': 2, 'y': 4)",
    ],
)
def test_ways_to_print_a_mesh(text: str) -> None:
    assert jax_text.parse_abstract_mesh(text) == MESH


def test_a_mesh_with_missing_names_is_refused() -> None:
    with pytest.raises(rd.TypeSyntaxError, match="column 6: expected 2 names"):
        jax_text.parse_abstract_mesh("Mesh(axis_sizes=(2, 4), axis_names=('x',))")
