"""Whole modules: the meshes they declare and every sharding in them, and lists of shardings."""

from __future__ import annotations

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import redistrib as rd
from redistrib.interop.modules import parse_module
from redistrib.interop.programs.sdy import plan_to_sdy
from redistrib.interop.shardy import parse_sdy, parse_sdy_list
from tests.generators import random_pair
from tests.interop.sdy_programs import collectives

MODULE = """
module @jit_f attributes {mhlo.num_partitions = 8 : i32} {
  sdy.mesh @mesh = <["x"=2, "y"=4]>
  sdy.mesh @maximal_mesh_3 = <[], device_ids=[3]>
  func.func public @main(%arg0: tensor<8x8xf32> {jax.buffer_donor = true, sdy.sharding = #sdy.sharding<@mesh, [{"x"}, {}], unreduced=max{"y"}>},
      %arg1: tensor<4xcomplex<f32>> {sdy.sharding = #sdy.sharding<@maximal_mesh_3, []>}, %arg2: tensor<i1>)
      -> (tensor<8x8xf32> {jax.result_info = "result", sdy.sharding = #sdy.sharding<@mesh, [{}, {"y":(1)2}]>}) {
    %0 = stablehlo.add %arg0, %arg0 {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{"y"}, {}]>]>} : tensor<8x8xf32>
    %1 = sdy.sharding_constraint %0 <@mesh, [{"x", "y"}, {}]> : tensor<8x8xf32>
    %2 = sdy.all_gather [{"y"}, {}] %1 out_sharding=<@mesh, [{"x"}, {}]> : tensor<8x8xf32>
    %3:2 = stablehlo.custom_call @two(%2) {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{}]>, <@mesh, [{"x"}]>]>} : (tensor<8x8xf32>) -> (tensor<2xbf16>, tensor<4xui8>)
    %4 = sdy.manual_computation(%2) in_shardings=[<@mesh, [{"x"}, {}]>] out_shardings=[<@mesh, [{}, {"x"}]>] manual_axes={"x"} (%arg3: tensor<4x8xf32>) {
      %5 = stablehlo.negate %arg3 : tensor<4x8xf32>
      sdy.return %5 : tensor<4x8xf32>
    } : (tensor<8x8xf32>) -> tensor<4x16xf32>
    %6 = stablehlo.dot_general %2, %2, contracting_dims = [1] x [0] {mhlo.sharding = "{devices=[2,4]<=[8]}"}
      : (tensor<8x8xf32>, tensor<8x8xf32>) -> tensor<8x8xf64>
    return %0 : tensor<8x8xf32>
  }
}
"""  # noqa: E501


def test_a_module_with_every_place_of_a_sharding() -> None:
    module = parse_module(MODULE)
    mesh = rd.Mesh(x=2, y=4)
    assert dict(module.meshes) == {"mesh": mesh, "maximal_mesh_3": rd.Mesh(devices=[3])}
    assert [(value, str(t)) for value, t in module.shardings] == [
        ("%arg0", "f32[8{x}, 8] max{y}"),
        ("%arg1", "c64[4]"),
        ("@main", "f32[8, 8{y:(1)2}]"),
        ("%0", "f32[8{y}, 8]"),
        ("%1", "f32[8{x,y}, 8]"),
        ("%2", "f32[8{x}, 8]"),
        ("%3", "bf16[2]"),
        ("%3", "u8[4{x}]"),
        ("%4", "f32[8{x}, 8]"),
        ("%4", "f32[4, 16{x}]"),
        ("%6", "f64[8{axis_0}, 8{axis_1}]"),
    ]
    assert module.shardings[1][1].mesh == rd.Mesh(devices=[3])


def test_hlo_shardings_are_read_on_the_only_mesh() -> None:
    text = MODULE.replace("  sdy.mesh @maximal_mesh_3 = <[], device_ids=[3]>\n", "")
    text = text.replace("{sdy.sharding = #sdy.sharding<@maximal_mesh_3, []>}", "")
    assert str(parse_module(text).shardings[-1][1]) == "f64[8{x}, 8{y}]"


def test_open_dimensions_are_a_pattern_unless_closed() -> None:
    text = MODULE.replace('[{"x", "y"}, {}]', '[{"x", ?}, {?}]')
    with pytest.raises(rd.TypeSyntaxError, match="an open one is a pattern") as caught:
        parse_module(text)
    line = str(caught.value).split("\n")[1]
    assert line.strip().startswith("%1 = sdy.sharding_constraint")
    assert str(parse_module(text, closed=True).shardings[4][1]) == "f32[8{x}, 8]"


def test_the_programs_of_plans_say_the_types_of_the_plan() -> None:
    rng = random.Random(3)
    read = 0
    while read < 100:
        src, dst = random_pair(rng.choice)
        try:
            text = plan_to_sdy(collectives(src, dst))
        except rd.LayoutError:
            continue
        assert [t for _, t in parse_module(text).shardings[:2]] == [src, dst]
        read += 1


def test_what_jax_lowers() -> None:
    mesh = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), ("x", "y"))
    sharding = NamedSharding(mesh, PartitionSpec("x", None))
    f = jax.jit(lambda a: (a + 1).sum(1), in_shardings=sharding)
    text = f.lower(jnp.zeros((8, 4), jnp.float32)).as_text()
    module = parse_module(text, closed=True)
    assert [*module.meshes.values()] == [rd.Mesh(x=1, y=1)]
    assert module.shardings[0] == ("%arg0", rd.ArrayType(rd.Mesh(x=1, y=1), "f32", (8, 4)))


def test_lists_of_shardings() -> None:
    meshes = {"a": rd.Mesh(x=2), "b": rd.Mesh(y=3)}
    text = '[<@a, [{"x"}]>, #sdy.sharding<@b, [{}, {"y"}]>]'
    types = parse_sdy_list(text, meshes, [(8,), (3, 3)], ["f32", "i8"])
    assert [str(t) for t in types] == ["f32[8{x}]", "i8[3, 3{y}]"]
    assert types == parse_sdy_list(
        f"#sdy.sharding_per_value<{text}>", meshes, [(8,), (3, 3)], ["f32", "i8"]
    )
    for shapes in ([(8,)], [(8,), (3, 3), (2,)]):
        with pytest.raises(rd.TypeSyntaxError, match="one per tensor"):
            parse_sdy_list(text, meshes, shapes, ["f32"] * len(shapes))
    with pytest.raises(rd.TypeSyntaxError, match="one of the meshes a, b"):
        parse_sdy("<@c, [{}]>", meshes, (8,), "f32")


@pytest.mark.parametrize(
    "text",
    [
        "#sdy.sharding<@mesh, [{}]>",
        '%0 = "op"() {sdy.sharding = #sdy.sharding_per_value<[<@mesh, [{}]>]>} : () -> ()',
        "sdy.mesh @mesh = <[",
    ],
)
def test_what_is_no_module_is_a_syntax_error(text: str) -> None:
    with pytest.raises(rd.TypeSyntaxError):
        parse_module(text)
    assert parse_module("").shardings == ()
