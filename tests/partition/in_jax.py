"""The layer of `examples/transformer.py` in jax: a step of training under given layouts."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

import redistrib as rd
from redistrib.interop.hlo_traffic import HloTraffic, hlo_traffic
from redistrib.partition import Choice, Costs, Graph, ShardedUpdate

EXAMPLES = Path(__file__).parents[2] / "examples"


def _norm(x: Any) -> Any:
    return x * jax.lax.rsqrt((x * x).mean(-1, keepdims=True))


def _attend(q: Any, k: Any, v: Any) -> Any:
    weights = jax.nn.softmax(jnp.einsum("bsgrd,btgd->bsgrt", q, k), -1)
    return jnp.einsum("bsgrt,btgd->bsgrd", weights, v)


FUNCTIONS = {
    "n1": _norm,
    "n2": _norm,
    "attend": _attend,
    "act": lambda a, b: jax.nn.silu(a) * b,
    "r1": jnp.add,
    "y": jnp.add,
}
"""Operators that are more than their einsum."""


def compiled_traffic(graph: Graph, choice: Choice, mesh: rd.Mesh) -> HloTraffic:
    """What XLA's program of a step moves: gradients have the layouts of their parameters.

    With a `ShardedUpdate` the optimizer's copy of a parameter has that of the gradient, and the
    program returns the parameter that it updates.
    """
    devices = jax.make_mesh([size for _, size in mesh.axes], [name for name, _ in mesh.axes])

    def sharding(t: rd.ArrayType) -> NamedSharding:
        dims = [[d.axis for d in factors if hasattr(d, "axis")] for factors in t.dims]
        return NamedSharding(devices, P(*(tuple(axes) or None for axes in dims)))

    def step(x: Any, parameters: dict[str, Any], masters: dict[str, Any], gradient: Any) -> Any:
        def forward(parameters: dict[str, Any]) -> Any:
            known = {"x": x, **parameters}
            for op in graph.operators:
                read = [known[name] for name in op.inputs]
                function = FUNCTIONS.get(op.name)
                known[op.name] = function(*read) if function else jnp.einsum(op.expression, *read)
            return known["y"]

        y, backward = jax.vjp(forward, parameters)
        gradients = backward(gradient)[0]
        return y, {n: masters[n] - g if n in masters else g for n, g in gradients.items()}

    def like(name: str) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(graph.shapes[name], graph.dtype.replace("f", "float"))

    stored = {name: sharding(Costs.written(choice[name])[0]) for name in graph.parameters}
    masters = {
        name: sharding(option.state)
        for name, option in choice.items()
        if isinstance(option, ShardedUpdate)
    }
    y = sharding(choice["y"].output)
    program = jax.jit(
        step, in_shardings=(sharding(choice["x"]), stored, masters, y), out_shardings=(y, stored)
    )
    given, copies = ({name: like(name) for name in names} for names in (stored, masters))
    text = program.lower(like("x"), given, copies, like("y")).compile().as_text()
    assert text is not None
    return hlo_traffic(text, mesh.num_devices)


def verify_tactics() -> None:
    """After each tactic a step moves what XLA's program does.

    XLA's compiler for CPUs has no reduce_scatter: it reduces to all, twice the bytes, and slices.
    """
    sys.path.insert(0, str(EXAMPLES))
    transformer, partir = map(importlib.import_module, ("transformer", "partir"))
    graph = transformer.layer(8, 16, 32, 4, 2, 8, 64)
    graph = Graph(
        {name: graph.shapes[name] for name in graph.given}, graph.operators, graph.parameters, "f32"
    )
    mesh = rd.Mesh(data=2, model=4)
    costs = Costs(graph, rd.Oracle(mesh, effort="fast"))
    for name, choice in partir.tactics(graph, mesh).items():
        step = costs.step(choice, shared=True)
        received = sum(
            term.timed_bytes * (2 if term.collective == "reduce_scatter" else 1)
            for move in step.moves.values()
            for term in move.terms
        )
        found = compiled_traffic(graph, choice, mesh)
        assert received == found.received_bytes, (name, step.count(), found)
