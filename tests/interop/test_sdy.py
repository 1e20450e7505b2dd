"""Plans as collectives of Shardy's dialect: jaxlib's own verifier, and what the text means."""

from __future__ import annotations

import random
from collections import Counter
from itertools import product

import pytest
from jaxlib.mlir import ir

import redistrib as rd
from redistrib.interop.programs.sdy import plan_to_sdy
from tests.generators import random_pair, whole_axis_layouts
from tests.interop.sdy_programs import CONTEXT, collectives, verify_sdy, verify_sdy_pair
from tests.repetitions import repetitions


def test_pairs_of_the_2x2x2_mesh() -> None:
    """One in some, or all of them."""
    layouts = list(whole_axis_layouts(rd.Mesh(x=2, y=2, z=2), (8, 8, 8)))
    pairs = list(product(layouts, repeat=2))[:: repetitions(17, 1)]
    counts: Counter[str] = Counter()
    for src, dst in pairs:
        counts += verify_sdy_pair(src, dst)
    assert counts["pairs"] == len(pairs) >= 11236 // 17
    assert 0 < counts["reshaped"] < len(pairs)


def test_pairs_of_the_2x3x2_mesh() -> None:
    """The stage `sdy` of tests.exhaustive takes every pair: planning so many takes minutes."""
    layouts = list(whole_axis_layouts(rd.Mesh(x=2, y=3, z=2), (12, 12, 12)))
    rng = random.Random(0)
    for _ in range(repetitions(60, 400)):
        verify_sdy_pair(rng.choice(layouts), rng.choice(layouts))


def test_random_pairs_with_parts_of_axes_and_partial_sums() -> None:
    rng = random.Random(1)
    written, pairs = 0, repetitions(100, 500)
    for _ in range(pairs):
        src, dst = random_pair(rng.choice)
        try:
            verify_sdy(collectives(src, dst))
        except rd.LayoutError as error:
            if "has no word for" not in str(error):
                raise
            continue
        written += 1
    assert written > 0.4 * pairs


def test_a_target_on_another_mesh_is_shown_on_that_of_the_source() -> None:
    src = rd.ArrayType.parse("f32[8{x}, 8]", rd.Mesh(x=2, y=2))
    text = verify_sdy(collectives(src, rd.ArrayType.parse("f32[8, 8{z}]", rd.Mesh(z=4))))
    assert '-> (tensor<8x8xf32> {sdy.sharding = #sdy.sharding<@mesh, [{}, {"x", "y"}]>})' in text


@pytest.mark.parametrize(
    ("src", "dst", "what"),
    [
        ("f32[8{_2,x}]", "f32[8]", "a local factor before an axis"),
        ("f32[8]", "f32[8{_2,x}]", "a local factor before an axis"),
        ("f32[8] max{x}", "f32[8]", "a partial max"),
    ],
)
def test_ends_without_a_word(src: str, dst: str, what: str) -> None:
    mesh = rd.Mesh(x=2)
    plan = rd.plan(rd.ArrayType.parse(src, mesh), rd.ArrayType.parse(dst, mesh))
    with pytest.raises(rd.LayoutError, match=f"Shardy has no word for {what}"):
        plan_to_sdy(plan)


def test_a_wrong_program_is_refused() -> None:
    """The verifier tells a wrong operand; the test can fail."""
    mesh = rd.Mesh(x=2, y=2)
    plan = collectives(
        rd.ArrayType.parse("f32[8{x}, 8{y}]", mesh), rd.ArrayType.parse("f32[8, 8{y,x}]", mesh)
    )
    wrong = plan_to_sdy(plan).replace('[{"x"}: 0->1]', '[{"y"}: 0->1]')
    with CONTEXT, pytest.raises(ir.MLIRError, match="can't apply all-to-all axis"):
        ir.Module.parse(wrong)
