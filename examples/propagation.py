"""Sharding from a few annotations, as in GSPMD and Shardy; conflicts are settled by price.

    python examples/propagation.py

Three annotations shard a whole layer. Where annotations contradict each other, the order in which
they are carried through the program decides who wins: all are priced, the cheapest is taken.
"""

from __future__ import annotations

from itertools import permutations

from transformer import layer

import redistrib as rd
from redistrib.partition import Choice, Costs, propagate
from redistrib.partition.propagation import Decision


def cheapest(costs: Costs, annotations: list[Decision]) -> tuple[float, Choice]:
    """The seconds and the choice of the best order of annotations."""
    graph, mesh = costs.graph, costs.oracle.mesh
    choices = [propagate(graph, mesh, order) for order in permutations(annotations)]
    return min(((costs.seconds(c), c) for c in choices), key=lambda priced: priced[0])


if __name__ == "__main__":
    mesh = rd.Mesh(data=2, model=4)
    costs = Costs(layer(), rd.Oracle(mesh, "dgx-h100", effort="fast"))
    agreed = [("x", 0, "data"), ("wq", 1, "model"), ("gate", 1, "model")]
    contradicting = [*agreed, ("down", 1, "model")]
    for annotations in (agreed, contradicting):
        seconds, choice = cheapest(costs, annotations)
        print(f"{len(annotations)} annotations: {seconds * 1e3:.2f} ms")
        for name in ("attend", "o", "h1", "h3"):
            print(f"    {name:8} {choice[name].output}")
