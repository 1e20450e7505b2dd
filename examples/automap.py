"""Monte-Carlo tree search over decisions on named tensors, as in automap.

    python examples/automap.py

A decision shards a dimension of a tensor over the axis; propagation carries it through the program,
and the oracle prices what has to move. Parameters do not fit a device whole, so that something has
to be sharded. The search knows no strategy; it ends with that of Megatron: the first matrices of
attention and MLP by columns, the second ones by rows, one all_reduce each.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field

from transformer import layer

import redistrib as rd
from redistrib.partition import Costs, Graph, Step, propagate
from redistrib.partition.propagation import Decision, Propagation

STOP: Decision = ("", 0, "")
EXPLORE = 0.5
MEGATRON = {"all_reduce": 2}
"""The collectives of a layer forward: one after attention, one after the MLP."""


@dataclass
class Node:
    """Decisions so far: how often they were visited, the sum of rewards, and what may follow."""

    visits: int = 0
    reward: float = 0.0
    children: dict[Decision, Node] = field(default_factory=dict)


class Search:
    """A tree search for the decisions of least seconds within a memory limit."""

    def __init__(self, costs: Costs, memory: float, seed: int, depth: int = 6) -> None:
        self.costs, self.memory, self.depth = costs, memory, depth
        self.rng = random.Random(seed)  # noqa: S311 - no secret
        self.root = Node()
        self.best: tuple[float, tuple[Decision, ...]] = (math.inf, ())
        self.priced: dict[frozenset[object], float] = {}
        graph, mesh = costs.graph, costs.oracle.mesh
        written = {op.name for op in graph.operators}
        self.decisions: list[Decision] = [
            (name, dim, axis)
            for axis in mesh.sizes
            for name, shape in graph.shapes.items()
            if name not in written
            for dim in range(len(shape))
        ]
        self.scale = self.seconds(())

    def seconds(self, decisions: tuple[Decision, ...]) -> float:
        """Of a step, and as many again for each time that parameters exceed the memory."""
        graph, mesh = self.costs.graph, self.costs.oracle.mesh
        choice = propagate(graph, mesh, decisions)
        key = frozenset(choice.items())
        if key not in self.priced:
            kept = sum(self.costs.memory(name, choice[name]) for name in graph.parameters)
            over = max(0.0, kept / self.memory - 1)
            self.priced[key] = self.costs.seconds(choice) * (1 + over)
        return self.priced[key]

    def open(self, decisions: tuple[Decision, ...]) -> list[Decision]:
        """What may follow: decisions that are not implied by those so far, and to stop."""
        if len(decisions) == self.depth or STOP in decisions:
            return []
        state = Propagation(self.costs.graph, self.costs.oracle.mesh)
        for decision in decisions:
            state.decide(decision)
        return [d for d in self.decisions if (d[0], d[2]) not in state.dims] + [STOP]

    def run(self, playouts: int) -> tuple[Decision, ...]:
        """The best decisions of so many playouts."""
        for _ in range(playouts):
            path, node, decisions = [self.root], self.root, ()
            while options := self.open(decisions):
                fresh = [d for d in options if d not in node.children]
                decision = self.rng.choice(fresh) if fresh else self.follow(node)
                node = node.children.setdefault(decision, Node())
                path.append(node)
                decisions = (*decisions, decision)
                if fresh:
                    break
            while options := self.open(decisions):
                decisions = (*decisions, self.rng.choice(options))
            taken = tuple(d for d in decisions if d != STOP)
            # Every prefix is a program too: the playout is worth its best one.
            best = min((self.seconds(taken[:n]), taken[:n]) for n in range(len(taken) + 1))
            self.best = min(self.best, best)
            for visited in path:
                visited.visits += 1
                visited.reward += self.scale / best[0] - 1
        return self.best[1]

    def follow(self, node: Node) -> Decision:
        """The child of the highest upper confidence bound."""
        most = max(child.reward / child.visits for child in node.children.values()) or 1.0

        def bound(child: Node) -> float:
            explore = math.sqrt(math.log(node.visits) / child.visits)
            return child.reward / child.visits / most + EXPLORE * explore

        return max(node.children, key=lambda d: bound(node.children[d]))


def search(seed: int, playouts: int = 150) -> tuple[tuple[Decision, ...], Step, int]:
    """The decisions found from a seed, their step, and how many moves the oracle priced."""
    mesh = rd.Mesh(model=4)
    graph: Graph = layer(batch=1)
    costs = Costs(graph, rd.Oracle(mesh, "dgx-h100", effort="fast"), training=False)
    parameter_bytes = sum(
        costs.memory(name, rd.ArrayType(mesh, "bf16", graph.shapes[name]))
        for name in graph.parameters
    )
    tree = Search(costs, parameter_bytes / 3.9, seed)
    decisions = tree.run(playouts)
    return decisions, costs.step(propagate(graph, mesh, decisions)), costs.questions


def main(seeds: int) -> int:
    """Search from several seeds; how many end with the collectives of Megatron."""
    right = 0
    for seed in range(seeds):
        start = time.perf_counter()
        decisions, step, priced = search(seed)
        right += step.count() == MEGATRON
        print(
            f"seed {seed}: {step.count()}, {step.seconds * 1e3:.2f} ms; {priced} moves priced, "
            f"{time.perf_counter() - start:.1f} s: {', '.join(f'{t}.{d}' for t, d, _ in decisions)}"
        )
    print(f"Megatron from {right} of {seeds} seeds")
    return right


if __name__ == "__main__":
    main(10)
