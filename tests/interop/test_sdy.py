"""Plans as collectives of Shardy's dialect: jaxlib's own verifier, and what the text means."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from math import prod
from typing import Any

import pytest
from jax._src.interpreters import mlir
from jaxlib.mlir import ir

import redistrib as rd
from redistrib.interop.sdy_program import plan_to_sdy
from redistrib.interop.shardy import parse_sdy
from redistrib.types.digits import Factor, Local
from tests.generators import random_pair, whole_axis_layouts

CONTEXT: Any = mlir.make_ir_context()

_NAMES = {
    "dynamic_slice": "sdy.all_slice",
    "replicated_to_partial": "sdy.replicated_to_unreduced",
    "sharded_to_partial": "sdy.sharded_to_unreduced",
}


def verify(plan: rd.Plan) -> str:
    """The text of a plan, after the verifier and against the types of the plan."""
    text = plan_to_sdy(plan)
    with CONTEXT:
        module = ir.Module.parse(text)
        assert module.operation.verify()
    operations = re.findall(r"^ *%\d+ = ([a-z._]+) ", text, re.MULTILINE)
    assert [name for name in operations if name != "stablehlo.reshape"] == [
        _NAMES.get(step.collective, f"sdy.{step.collective}") for step in plan.steps
    ]
    at = 0
    for name, t in interpret(text, plan.src):
        at += name != "stablehlo.reshape"
        assert t == plan.types[at], text
    assert at == len(plan.steps)
    return text


def interpret(text: str, src: rd.ArrayType) -> Iterator[tuple[str, rd.ArrayType]]:
    """Each operation with the type of its result on the dimensions of the array."""
    for line in text.splitlines():
        operation = re.match(r" *%\d+ = ([a-z._]+) ", line)
        if operation is None:
            continue
        found = re.search(r"<@mesh, .*?\](?:, unreduced=\{[^}]*\})?>", line)
        tensor = re.findall(r"tensor<([^>]*)>", line)[-1]
        assert found is not None
        *sizes, _ = tensor.split("x")
        shape = [int(size) for size in sizes]
        view = parse_sdy(found[0], src.mesh, shape, src.dtype)
        yield operation[1], unviewed(view, src)


def unviewed(view: rd.ArrayType, src: rd.ArrayType) -> rd.ArrayType:
    """The type on the array's own dimensions, each of which is a run of those of the view."""
    runs = iter(zip(view.shape, view.dims, strict=True))
    dims = []
    for n in src.shape:
        factors: list[Factor] = []
        count = 1
        while True:
            size, part = next(runs)
            factors += part
            if size:
                factors.append(Local(size // prod(factor.size for factor in part)))
            count *= size
            if count == n:
                break
        dims.append(factors)
    return rd.ArrayType(src.mesh, src.dtype, src.shape, dims, view.partial, view.reduction)


def collectives(src: rd.ArrayType, dst: rd.ArrayType) -> rd.Plan:
    """A plan without exchange, above the larger end where there is none below it."""
    try:
        return rd.plan(src, dst, strategy="collectives")
    except rd.InfeasibleError as error:
        return rd.plan(src, dst, strategy="collectives", memory_limit=error.least_bytes)


def test_every_pair_of_the_2x2x2_mesh() -> None:
    layouts = list(whole_axis_layouts(rd.Mesh(x=2, y=2, z=2), (8, 8, 8)))
    pairs = reshaped = 0
    for src in layouts:
        for dst in layouts:
            text = verify(collectives(src, dst))
            pairs += 1
            reshaped += "stablehlo.reshape" in text
    assert pairs == 11236
    assert 0 < reshaped < pairs


def test_pairs_of_the_2x3x2_mesh() -> None:
    """Every pair is in the exhaustive stage `sdy`: planning misaligned ones takes minutes."""
    layouts = list(whole_axis_layouts(rd.Mesh(x=2, y=3, z=2), (12, 12, 12)))
    rng = random.Random(0)
    for _ in range(700):
        verify(collectives(rng.choice(layouts), rng.choice(layouts)))


def test_random_pairs_with_parts_of_axes_and_partial_sums() -> None:
    rng = random.Random(1)
    written = 0
    for _ in range(500):
        src, dst = random_pair(rng.choice)
        try:
            verify(collectives(src, dst))
        except rd.LayoutError as error:
            if "has no word for" not in str(error):
                raise
            continue
        written += 1
    assert written > 200


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
