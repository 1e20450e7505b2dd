"""What must hold of a plan as Shardy's collectives; for the tests and the exhaustive stage."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from math import prod
from typing import Any

from jax._src.interpreters import mlir
from jaxlib.mlir import ir

import redistrib as rd
from redistrib.interop.programs.sdy import plan_to_sdy
from redistrib.interop.shardy import parse_sdy
from redistrib.types.digits import Factor, Local

CONTEXT: Any = mlir.make_ir_context()

_NAMES = {
    "dynamic_slice": "sdy.all_slice",
    "replicated_to_partial": "sdy.replicated_to_unreduced",
    "sharded_to_partial": "sdy.sharded_to_unreduced",
}


_EMPTY_NAMES = {**_NAMES, "sharded_to_partial": "sdy.all_gather"}
"""A sum of no elements is none."""


def verify_sdy(plan: rd.Plan) -> str:
    """The text of a plan: jaxlib's verifier accepts it, and its types are those of the plan."""
    text = plan_to_sdy(plan)
    with CONTEXT:
        module = ir.Module.parse(text)
        assert module.operation.verify()
    names = _NAMES if plan.src.size else _EMPTY_NAMES
    operations = re.findall(r"^ *%\d+ = ([a-z._]+) ", text, re.MULTILINE)
    assert [name for name in operations if name != "stablehlo.reshape"] == [
        names.get(step.collective, f"sdy.{step.collective}") for step in plan.steps
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


def verify_sdy_pair(src: rd.ArrayType, dst: rd.ArrayType) -> Counter[str]:
    """Plan a pair and verify its text; counts pairs and those that reshape on the way."""
    text = verify_sdy(collectives(src, dst))
    return Counter(pairs=1, reshaped="stablehlo.reshape" in text)
