"""Tactics one after another, as in PartIR: batch, model, then optimizer state and parameters.

    python examples/partir.py

After each tactic it prints the collectives of a step of training and its time: data parallelism
all_reduces gradients; Megatron adds two all_reduces a layer forward and two backward; ZeRO-2
reduce_scatters gradients, updates a part of each parameter and gathers it once; ZeRO-3 stores that
part alone and gathers it for its use.
"""

from __future__ import annotations

from transformer import MEGATRON, layer

import redistrib as rd
from redistrib.partition import (
    Choice,
    Costs,
    Graph,
    ShardedUpdate,
    Step,
    propagate,
    sharded_further,
)
from redistrib.partition.propagation import Decision

BATCH: list[Decision] = [("x", 0, "data")]
MODEL: list[Decision] = [decision for decision in MEGATRON if decision[2] == "model"]


def tactics(graph: Graph, mesh: rd.Mesh) -> dict[str, Choice]:
    """The choice after each tactic."""
    batch = propagate(graph, mesh, BATCH)
    model = propagate(graph, mesh, BATCH + MODEL)
    stored = {name: sharded_further(model[name], ["data"]) for name in graph.parameters}
    updated = {name: ShardedUpdate(model[name], state) for name, state in stored.items()}
    return {
        "batch": batch,
        "+ model": model,
        "+ ZeRO-2": {**model, **updated},
        "+ ZeRO-3": {**model, **stored},
    }


def steps(mesh: rd.Mesh, profile: str = "dgx-h100") -> dict[str, Step]:
    """The step after each tactic."""
    graph = layer()
    costs = Costs(graph, rd.Oracle(mesh, profile, effort="fast"))
    return {name: costs.step(choice, shared=True) for name, choice in tactics(graph, mesh).items()}


if __name__ == "__main__":
    for name, step in steps(rd.Mesh(data=4, model=8)).items():
        kinds = ", ".join(f"{count} {kind}" for kind, count in step.count().items())
        print(f"{name:10} {step.seconds * 1e3:7.2f} ms, {step.memory / 1e9:6.2f} GB: {kinds}")
