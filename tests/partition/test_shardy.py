"""Propagation beside Shardy's own, on programs in which no two decisions meet.

Shardy's pass is run on the same program as StableHLO, in which what is decided is closed and all
else open. Where an axis would shard two letters of an operator each has an order of its own in
which to look, so such programs are drawn again.
"""

from __future__ import annotations

import random
import re
from typing import Any

import redistrib as rd
from redistrib.partition import Graph, Operator, propagate
from redistrib.partition.propagation import Decision
from tests.repetitions import repetitions

MESH = rd.Mesh(p=2, q=4)
SIZES = (8, 16, 32)


def random_graph(rng: random.Random) -> Graph:
    """Products, sums, functions and transposes of matrices and of batches of them."""
    given: dict[str, tuple[int, ...]] = {}
    operators: list[Operator] = []
    shapes: dict[str, tuple[int, ...]] = {}

    def new(shape: tuple[int, ...]) -> str:
        name = f"g{len(given)}"
        given[name] = shapes[name] = shape
        return name

    new(tuple(rng.choice(SIZES) for _ in range(rng.choice((2, 3)))))
    for number in range(rng.randint(3, 6)):
        source = rng.choice(list(shapes))
        shape, name = shapes[source], f"t{number}"
        word = "abc"[: len(shape)]
        kind = rng.choice(("product", "product", "sum", "function", "transpose"))
        if kind == "product":
            right = (*shape[:-2], shape[-1], rng.choice(SIZES))
            alike = [other for other, found in shapes.items() if found == right]
            other = rng.choice([*alike, ""]) or new(right)
            batch, (row, column) = word[:-2], word[-2:]
            expression = f"{word},{batch}{column}z->{batch}{row}z"
            inputs, shapes[name] = (source, other), (*shape[:-1], right[-1])
        elif kind == "sum":
            alike = [other for other, found in shapes.items() if found == shape]
            expression, inputs, shapes[name] = (
                f"{word},{word}->{word}",
                (source, rng.choice(alike)),
                shape,
            )
        else:
            out = word if kind == "function" else word[:-2] + word[:-3:-1]
            order = [word.index(letter) for letter in out]
            expression, inputs = f"{word}->{out}", (source,)
            shapes[name] = tuple(shape[n] for n in order)
        operators.append(Operator(name, expression, inputs, linear=kind != "function"))
    return Graph(given, operators, dtype="f32")


def module_of(graph: Graph, decisions: list[Decision]) -> str:
    """The program as StableHLO: it is given and gives back every tensor."""

    def tensor(name: str) -> str:
        return "tensor<" + "".join(f"{n}x" for n in graph.shapes[name]) + "f32>"

    def decided(name: str) -> str:
        dims: list[list[str]] = [[] for _ in graph.shapes[name]]
        for of, dim, axis in decisions:
            if of == name:
                dims[dim].append(f'"{axis}"')
        text = ", ".join("{" + ", ".join([*axes, "?"]) + "}" for axes in dims)
        return f"<@mesh, [{text}]>"

    lines = []
    for op in graph.operators:
        operands = ", ".join(f"%{name}" for name in op.inputs)
        types = f"({', '.join(map(tensor, op.inputs))}) -> {tensor(op.name)}"
        if len(op.inputs) == 2 and op.operands[0] != op.operands[1]:
            batch = list(range(len(op.operands[0]) - 2))
            at = f"[{len(batch) + 1}] x [{len(batch)}]"
            dims = f"batching_dims = {batch} x {batch}, " if batch else ""
            line = f"dot_general {operands}, {dims}contracting_dims = {at} : {types}"
        elif len(op.inputs) == 2:
            line = f"add {operands} : {tensor(op.name)}"
        elif op.operands[0] == op.output:
            line = f"tanh {operands} : {tensor(op.name)}"
        else:
            order = [op.operands[0].index(letter) for letter in op.output]
            line = f"transpose {operands}, dims = {order} : {types}"
        written = f"{op.name}.0" if any(of == op.name for of, *_ in decisions) else op.name
        lines.append(f"  %{written} = stablehlo.{line}")
        if written != op.name:
            lines.append(
                f"  %{op.name} = sdy.sharding_constraint %{written} {decided(op.name)} : "
                f"{tensor(op.name)}"
            )
    arguments = ", ".join(
        f"%{name}: {tensor(name)} {{sdy.sharding = #sdy.sharding{decided(name)}}}"
        for name in graph.given
    )
    names = list(graph.shapes)
    axes = ", ".join(f'"{axis}"={size}' for axis, size in MESH.axes)
    return (
        f"sdy.mesh @mesh = <[{axes}]>\n"
        f"func.func @main({arguments}) -> ({', '.join(map(tensor, names))}) {{\n"
        + "\n".join(lines)
        + f"\n  return {', '.join('%' + n for n in names)} : {', '.join(map(tensor, names))}\n}}\n"
    )


def by_shardy(graph: Graph, decisions: list[Decision]) -> dict[str, list[set[str]]]:
    """Per tensor the axes of each dimension after Shardy's propagation."""
    from jax._src.interpreters import mlir
    from jaxlib.mlir import ir, passmanager

    with mlir.make_ir_context():
        module = ir.Module.parse(module_of(graph, decisions))
        passmanager.PassManager.parse("builtin.module(sdy-propagation-pipeline)").run(
            module.operation
        )
        main = next(op for op in module.body.operations if op.operation.name == "func.func")
        attributes = [str(entry) for entry in main.attributes["res_attrs"]]
    found = {}
    for name, text in zip(graph.shapes, attributes, strict=True):
        dims = re.search(r"\[(.*?)\]", text)  # none where nothing shards the tensor
        each = re.findall(r"{.*?}", dims[1]) if dims else [""] * len(graph.shapes[name])
        found[name] = [set(re.findall(r'"(\w+)"', dim)) for dim in each]
    return found


def axes_of(option: Any) -> list[set[str]]:
    """The axes of each dimension of what an option writes; those that are partial have none."""
    t = option if isinstance(option, rd.ArrayType) else option.output
    return [{d.axis for d in factors if hasattr(d, "axis")} for factors in t.dims]


def agree(graph: Graph, choice: dict[str, Any]) -> bool:
    """Whether every operator reads each tensor as it is, and no dimension has two axes."""
    for name, option in choice.items():
        if any(len(axes) > 1 for axes in axes_of(option)):
            return False
        if isinstance(option, rd.ArrayType):
            continue
        for at, read in zip(graph.operator(name).inputs, option.inputs, strict=True):
            if axes_of(choice[at]) != axes_of(read):
                return False
    return True


def test_propagation_is_that_of_shardy_where_no_decisions_meet() -> None:
    seen, reached, seed = 0, 0, 0
    while seen < repetitions(20, 500):
        rng = random.Random(seed)
        seed += 1
        graph = random_graph(rng)
        names = rng.sample(list(graph.shapes), 2)
        decisions = [
            (name, rng.randrange(len(graph.shapes[name])), axis)
            for name, axis in zip(names, rng.sample(["p", "q"], 2), strict=True)
        ]
        choice = propagate(graph, MESH, decisions)
        if not agree(graph, choice):
            continue
        ours = {name: axes_of(option) for name, option in choice.items()}
        theirs = by_shardy(graph, decisions)
        assert ours == theirs, (seed - 1, graph.operators, decisions)
        seen += 1
        reached += sum(any(dims) for dims in ours.values()) - 2
    assert reached > seen  # decisions reach other tensors
