"""Programs as operators: what a sharding means, what a step costs, and the partitioners on top."""

from __future__ import annotations

import importlib
import random
import sys
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import redistrib as rd
from redistrib.backends import simulator
from redistrib.partition import (
    Costs,
    Graph,
    Operator,
    ShardedUpdate,
    Sharding,
    propagate,
    sharded_further,
    shardings,
    tensor_types,
)
from tests.repetitions import repetitions

EXAMPLES = Path(__file__).parents[2] / "examples"
MLP = Graph(
    {"x": (8, 16), "w1": (16, 32), "w2": (32, 16)},
    [
        Operator("h", "be,ef->bf", ("x", "w1")),
        Operator("a", "bf->bf", ("h",), linear=False),
        Operator("y", "bf,fe->be", ("a", "w2")),
    ],
    parameters=("w1", "w2"),
    dtype="i32",
)
MESH = rd.Mesh(p=2, q=4)


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a file of examples/ by name."""
    monkeypatch.syspath_prepend(str(EXAMPLES))
    yield importlib.import_module
    for name in ("alpa", "automap", "partir", "propagation", "transformer"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("sharding", shardings(MLP, MESH, "h", idle=True), ids=str)
def test_a_sharded_product_is_the_product(sharding: Sharding) -> None:
    """Each device multiplies its tiles; what it writes are tiles of the type that is stated."""
    rng = np.random.default_rng(0)
    x, w = (rng.integers(-9, 9, MLP.shapes[name], np.int32) for name in ("x", "w1"))
    ours, theirs = (simulator.scatter(a, t) for a, t in zip((x, w), sharding.inputs, strict=True))
    tiles = [a @ b for a, b in zip(ours, theirs, strict=True)]
    whole = sharding.output.replace(dims=[(), ()], partial=())
    np.testing.assert_array_equal(
        simulator.gather(simulator.run(rd.plan(sharding.output, whole), tiles), whole), x @ w
    )
    # Backward: the gradient of x, from that of what is written.
    g = rng.integers(-9, 9, MLP.shapes["h"], np.int32)
    gradients = simulator.scatter(g, sharding.output_gradient)
    left = [a @ b.T for a, b in zip(gradients, theirs, strict=True)]
    t = sharding.input_gradients[0]
    whole = t.replace(dims=[(), ()], partial=())
    np.testing.assert_array_equal(
        simulator.gather(simulator.run(rd.plan(t, whole), left), whole), g @ w.T
    )


def test_prices_of_edges_add_up_to_those_of_steps() -> None:
    costs = Costs(MLP, rd.Oracle(MESH, "default", effort="fast"))
    rng = random.Random(1)
    options: dict[str, list[Any]] = {op.name: shardings(MLP, MESH, op.name) for op in MLP.operators}
    options |= {name: list(tensor_types(MLP, MESH, name)) for name in MLP.given}
    for name in MLP.parameters:
        options[name] += [ShardedUpdate(t, sharded_further(t, ["p", "q"])) for t in options[name]]
    for _ in range(repetitions(5, 500)):
        choice = {name: rng.choice(found) for name, found in options.items()}
        edges = [
            costs.edge(number, [choice[tensor]], [choice[name]])[0, 0]
            for tensor, name, number in MLP.edges()
        ]
        nodes = [costs.compute(option) + costs.update(option) for option in choice.values()]
        seconds = sum(nodes) + sum(edges)
        step = costs.step(choice)
        assert step.seconds == pytest.approx(costs.seconds(choice), rel=1e-12)
        assert seconds == pytest.approx(step.seconds, rel=1e-12)


def test_a_program_finds_the_optimum_of_all_choices(example: Any) -> None:
    alpa = example("alpa")
    mesh = rd.Mesh(p=2, q=2)
    costs = Costs(MLP, rd.Oracle(mesh, "default", effort="fast"))
    memory = 3.0 * sum(np.prod(MLP.shapes[name]) for name in MLP.parameters) * 4
    found = alpa.solve(costs, memory)
    options = alpa.options(MLP, mesh)

    def kept(choice: dict[str, Any]) -> int:
        return sum(costs.memory(name, choice[name]) for name in MLP.parameters)

    assert kept(found) <= memory
    rng = random.Random(2)
    for _ in range(repetitions(40, 5000)):
        choice = {name: rng.choice(of) for name, of in options.items()}
        if kept(choice) <= memory:
            assert costs.seconds(found) <= costs.seconds(choice) * (1 + 1e-6)


def test_an_integer_program_beats_layouts_by_hand(example: Any) -> None:
    alpa, transformer = example("alpa"), example("transformer")
    graph, mesh = transformer.layer(batch=4, positions=64, hidden=256, inner=512), rd.Mesh(d=2, m=2)
    costs = Costs(graph, rd.Oracle(mesh, "default", effort="fast"))
    memory = 1.05 * sum(
        costs.memory(name, t)
        for name, t in alpa.by_hand(graph, mesh)["FSDP"].items()
        if name in graph.parameters
    )
    found = costs.seconds(alpa.solve(costs, memory))
    by_hand = alpa.by_hand(graph, mesh)
    assert found <= min(costs.seconds(by_hand[name]) for name in ("FSDP", "Megatron, ZeRO-3"))


def test_a_tree_search_ends_with_the_layouts_of_megatron(example: Any) -> None:
    automap = example("automap")
    seeds = range(repetitions(1, 10))
    found = [automap.search(seed)[1].count() for seed in seeds]
    assert sum(count == automap.MEGATRON for count in found) >= 0.9 * len(found)


def test_tactics_add_their_collectives(example: Any) -> None:
    """Without idle axes: a mesh for each tactic."""
    partir, transformer = example("partir"), example("transformer")
    graph = transformer.layer(batch=4, positions=64, hidden=256, inner=512)
    costs = Costs(graph, rd.Oracle(rd.Mesh(data=4, model=1), effort="fast"))
    kinds = [
        costs.step(c, shared=True).count()
        for c in partir.tactics(graph, costs.oracle.mesh).values()
    ]
    assert kinds[0] == {"all_reduce": 7}  # a gradient for each parameter
    # ZeRO-2 gathers what was updated, ZeRO-3 what is used.
    assert kinds[2] == kinds[3] == {"all_gather": 7, "reduce_scatter": 7}
    costs = Costs(graph, rd.Oracle(rd.Mesh(data=1, model=4), effort="fast"))
    kinds = [
        costs.step(c, shared=True).count()
        for c in partir.tactics(graph, costs.oracle.mesh).values()
    ]
    # Forward after attention and MLP; backward before q, k, v together and before gate, up.
    assert kinds[1] == {"all_reduce": 4}


def test_propagation_by_hand() -> None:
    found = propagate(MLP, MESH, [("x", 0, "p"), ("w1", 1, "q")])
    assert [found[name].letters for name in ("h", "a", "y")] == [("b", "f")] * 3
    assert str(found["w2"]) == "i32[32{q}, 16]"
    # The first decision for an axis of a tensor holds, and where the two meet the layouts differ.
    found = propagate(MLP, MESH, [("w1", 0, "q"), ("w2", 0, "q")])
    assert found["h"].letters == ("", "e")
    assert found["y"].letters == ("", "f")
    with pytest.raises(rd.RedistribError, match="a decision is a tensor"):
        propagate(MLP, MESH, [("w3", 0, "q")])


def test_conflicts_are_settled_by_price(example: Any) -> None:
    propagation = example("propagation")
    costs = Costs(MLP, rd.Oracle(MESH, effort="fast"))
    decisions = [("w1", 0, "q"), ("w2", 0, "q"), ("x", 0, "p")]
    seconds, choice = propagation.cheapest(costs, decisions)
    assert seconds == costs.seconds(choice)
    assert seconds <= costs.seconds(propagate(MLP, MESH, decisions))


@pytest.mark.parametrize(
    ("expression", "inputs"), [("ab,bc", ("x", "y")), ("ab->ab", ("x", "y")), ("ab->ac", ("x",))]
)
def test_what_is_no_operator_is_refused(expression: str, inputs: tuple[str, ...]) -> None:
    with pytest.raises(rd.RedistribError, match="written as an einsum"):
        Operator("z", expression, inputs)


def test_what_is_no_graph_is_refused() -> None:
    with pytest.raises(rd.RedistribError, match="reads y as ab"):
        Graph({"x": (2, 2)}, [Operator("z", "ab->ab", ("y",))])
    with pytest.raises(rd.RedistribError, match="b is 3 and 2"):
        Graph({"x": (2, 3), "y": (2, 2)}, [Operator("z", "ab,bc->ac", ("x", "y"))])


def test_every_sharding_divides_the_work() -> None:
    for sharding in shardings(MLP, MESH, "h"):
        assert sharding.ways == MESH.num_devices
        tile = np.prod([sharding.output.tile_size, 16])
        summed = [n for n, x in zip((2, 4), sharding.letters, strict=True) if x == "e"]
        assert tile // np.prod(summed, dtype=int) * sharding.ways == 8 * 16 * 32
    assert len(shardings(MLP, MESH, "h", idle=True)) == len([*product("bef-", repeat=2)])
