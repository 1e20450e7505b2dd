"""Choosing layouts for a whole program: operators, the ways to shard them, and what each costs.

    graph.py       a program as operators over named tensors
    sharding.py    the ways to shard an operator, as types of what it reads and writes
    step.py        a step of training: compute by roofline, communication by the oracle, memory
    propagation.py from the sharding of some tensors to that of all operators

`examples/` has four partitioners on top of it. `import redistrib` does not import it.
"""

from redistrib.partition.graph import Device, Graph, Operator
from redistrib.partition.propagation import propagate
from redistrib.partition.sharding import Sharding, sharded_further, shardings, tensor_types
from redistrib.partition.step import Choice, Costs, ShardedUpdate, Step

__all__ = [
    "Choice",
    "Costs",
    "Device",
    "Graph",
    "Operator",
    "ShardedUpdate",
    "Sharding",
    "Step",
    "propagate",
    "sharded_further",
    "shardings",
    "tensor_types",
]
