"""Layouts of a transformer layer as an integer program, as in Alpa.

    python examples/alpa.py

One option for each operator and parameter, so that compute and what moves between them take least
time, and parameters with their optimizer state fit a share of the memory. What moves is priced by
`Oracle.cost_matrix`; scipy solves the program. It prints what was found beside layouts by hand.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from scipy.optimize import Bounds, LinearConstraint, milp
from scipy.sparse import coo_array
from transformer import MEGATRON, layer

import redistrib as rd
from redistrib.partition import (
    Choice,
    Costs,
    Graph,
    ShardedUpdate,
    Sharding,
    propagate,
    sharded_further,
    shardings,
    tensor_types,
)
from redistrib.partition.step import Option


def options(graph: Graph, mesh: rd.Mesh) -> dict[str, list[Option]]:
    """What to choose from: shardings of operators that use every axis, layouts of what is given.

    Of a parameter each layout also with an update that is sharded over the axes that are free.
    """
    choices: dict[str, list[Option]] = {
        op.name: [*shardings(graph, mesh, op.name)] for op in graph.operators
    }
    for name in graph.given:
        layouts = list(tensor_types(graph, mesh, name))
        choices[name] = [*layouts]
        if name in graph.parameters:
            updates = [sharded_update(t, [digit.axis for digit in t.free_digits]) for t in layouts]
            choices[name] += [update for update in updates if update.state != update.parameter]
    return choices


class Program:
    """Variables from 0 to 1, what each costs, and sums of them that are given."""

    def __init__(self) -> None:
        self.costs: list[float] = []
        self.entries: list[tuple[int, int, float]] = []
        self.least: list[float] = []
        self.most: list[float] = []

    def variables(self, costs: np.ndarray) -> np.ndarray:
        """New variables of these costs, as numbers of the same shape."""
        first = len(self.costs)
        self.costs += costs.ravel().tolist()
        return np.arange(first, len(self.costs)).reshape(costs.shape)

    def constrain(self, terms: Mapping[int, float], least: float, most: float) -> None:
        """A weighted sum of variables lies between two numbers."""
        self.entries += [(len(self.least), variable, weight) for variable, weight in terms.items()]
        self.least.append(least)
        self.most.append(most)

    def solve(self, binary: np.ndarray, seconds: float) -> np.ndarray:
        """The cheapest values; those of `binary` are 0 or 1."""
        rows, columns, weights = map(np.array, zip(*self.entries, strict=True))
        shape = (len(self.least), len(self.costs))
        matrix = coo_array((weights, (rows, columns)), shape=shape).tocsr()
        integral = np.zeros(len(self.costs))
        integral[binary] = 1
        solution = milp(
            np.array(self.costs),
            integrality=integral,
            bounds=Bounds(0, 1),
            constraints=LinearConstraint(matrix, self.least, self.most),
            options={"time_limit": seconds, "mip_rel_gap": 1e-6},
        )
        if solution.x is None:
            raise rd.InfeasibleError(f"no layouts fit: {solution.message}")
        return np.asarray(solution.x)


def alike(options: Sequence[Option], of: Callable[[Option], object]) -> list[list[int]]:
    """The numbers of options, in groups that are alike."""
    groups: dict[object, list[int]] = {}
    for number, option in enumerate(options):
        groups.setdefault(of(option), []).append(number)
    return list(groups.values())


def solve(costs: Costs, memory: float, seconds: float = 60.0) -> dict[str, Option]:
    """The choice that takes least time with at most so many bytes a device for parameters."""
    graph = costs.graph
    choices = options(graph, costs.oracle.mesh)
    program = Program()
    of_node: dict[str, np.ndarray] = {}
    unit = 1e6  # microseconds: solvers like numbers near 1
    for name, layouts in choices.items():
        of_node[name] = program.variables(
            np.array([costs.compute(o) + costs.update(o) for o in layouts]) * unit
        )
        program.constrain(dict.fromkeys(of_node[name].tolist(), 1.0), 1, 1)
    kept = {
        int(variable): costs.memory(name, option) / memory
        for name in graph.parameters
        for variable, option in zip(of_node[name], choices[name], strict=True)
    }
    program.constrain(kept, 0, 1)
    for tensor, name, number in graph.edges():
        writers, readers = choices[tensor], choices[name]
        # Options that write, or read, the same types are one to this edge.
        rows = alike(writers, costs.written)
        columns = alike(readers, lambda option, n=number: costs.read(option, n))
        pairs = program.variables(
            costs.edge(number, [writers[g[0]] for g in rows], [readers[g[0]] for g in columns])
            * unit
        )
        for node, groups, of_pairs in ((tensor, rows, pairs), (name, columns, pairs.T)):
            for group, row in zip(groups, of_pairs.tolist(), strict=True):
                negated = dict.fromkeys(of_node[node][group].tolist(), -1.0)
                program.constrain({**dict.fromkeys(row, 1.0), **negated}, 0, 0)
    binary = np.concatenate([*of_node.values()])
    values = program.solve(binary, seconds)
    return {name: choices[name][int(values[of].argmax())] for name, of in of_node.items()}


def sharded_update(t: rd.ArrayType, axes: list[str]) -> ShardedUpdate:
    """A parameter whose gradient and optimizer state are sharded over more axes (ZeRO-2)."""
    return ShardedUpdate(t, sharded_further(t, axes))


def stored(choice: Choice, graph: Graph, axes: list[str]) -> Choice:
    """A choice whose parameters are stored sharded over more axes as well (ZeRO-3)."""
    return {**choice, **{n: sharded_further(choice[n], axes) for n in graph.parameters}}


def by_hand(graph: Graph, mesh: rd.Mesh) -> dict[str, Choice]:
    """All axes on the batch, Megatron's layouts, and both with parameters stored sharded."""
    axes = list(mesh.sizes)
    batch = propagate(graph, mesh, [("x", 0, axis) for axis in axes])
    names = {"data": axes[0], "model": axes[-1]}
    first = [("x", 0, axis) for axis in axes[:-1]]
    megatron = propagate(graph, mesh, first + [(t, d, names[a]) for t, d, a in MEGATRON])
    return {
        "data parallel": batch,
        "FSDP": stored(batch, graph, axes),
        "Megatron": megatron,
        "Megatron, ZeRO-2": {
            **megatron,
            **{n: sharded_update(megatron[n], axes[:-1]) for n in graph.parameters},
        },
        "Megatron, ZeRO-3": stored(megatron, graph, axes[:-1]),
    }


def pipeline(seconds: float, layers: int, stages: int, move: float, batches: int) -> float:
    """Seconds of a step of equal layers in stages: microbatches fill and drain the pipeline."""
    stage = seconds * layers / stages + (move if stages > 1 else 0.0)
    return stage * (batches + stages - 1)


def main(mesh: rd.Mesh, profile: str, memory: float) -> dict[str, float]:
    """Solve a layer, print what was found; seconds of a step by name."""
    graph = layer()
    costs = Costs(graph, rd.Oracle(mesh, profile, effort="fast"))
    start = time.perf_counter()
    choices = {"found": solve(costs, memory), **by_hand(graph, mesh)}
    print(f"{mesh} under {profile}, solved in {time.perf_counter() - start:.1f} s")
    result = {}
    for name, choice in choices.items():
        step = costs.step(choice)
        kept = sum(costs.memory(p, choice[p]) for p in graph.parameters)
        result[name] = step.seconds if kept <= memory * (1 + 1e-9) else float("inf")
        print(
            f"  {name:16} {step.seconds * 1e3:8.2f} ms, {step.communication * 1e3:8.2f} of them "
            f"moving; parameters {kept / 1e9:.2f} GB{'' if kept <= memory else ' (too much)'}"
        )
    for name, option in choices["found"].items():
        print(f"    {name:8} {option.letters if isinstance(option, Sharding) else option}")
    output = choices["found"]["y"].output
    stages = rd.Mesh(mesh.axes, devices=range(mesh.num_devices, 2 * mesh.num_devices))
    next_stage = output.replace(mesh=stages)
    move = rd.cost(output, next_stage, profile=profile).seconds
    total = pipeline(result["found"], 32, 4, move, 16)
    print(f"  32 layers in 4 stages of 8, 16 batches: {total:.2f} s")
    return result


if __name__ == "__main__":
    for mesh in (rd.Mesh(data=2, model=4), rd.Mesh(a=4, b=4, c=2)):
        main(mesh, "dgx-h100", 2.5e9)
