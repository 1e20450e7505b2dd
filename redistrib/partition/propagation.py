"""From the sharding of some tensors to that of all operators, as GSPMD and Shardy propagate.

An axis on a dimension of a tensor gives its letter to every operator that reads or writes it; the
letter carries it to the other tensors of the operator, and so on, both ways, until nothing changes.
An operator that has another letter for that axis keeps it: there the layouts differ, and the move
between them has a price. A letter that is summed over ends there: what is written is a sum.

>>> from redistrib.types.mesh import Mesh
>>> from redistrib.partition.graph import Graph, Operator
>>> graph = Graph(
...     {"x": (8, 16), "w1": (16, 32), "w2": (32, 16)},
...     [Operator("h", "be,ef->bf", ("x", "w1")), Operator("y", "bf,fe->be", ("h", "w2"))],
... )
>>> options = propagate(graph, Mesh(data=2, model=4), [("x", 0, "data"), ("w1", 1, "model")])
>>> options["h"].letters, options["y"].letters, str(options["w2"]), str(options["y"].output)
(('b', 'f'), ('b', 'f'), 'bf16[32{model}, 16]', 'bf16[8{data}, 16] sum{model}')
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import prod
from typing import Any

from redistrib.errors import LayoutError, RedistribError
from redistrib.partition.graph import Graph
from redistrib.partition.sharding import NONE, Sharding
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

Decision = tuple[str, int, str]
"""A tensor, a dimension of it, and the axis that shards it."""


def propagate(graph: Graph, mesh: Mesh, decisions: Iterable[Decision]) -> dict[str, Any]:
    """An option for every operator and given tensor that follows from decisions, in their order.

    The first decision for an axis of a tensor holds. Raises RedistribError for a decision about a
    tensor, dimension or axis that is not there.
    """
    state = Propagation(graph, mesh)
    for decision in decisions:
        state.decide(decision)
    return state.choice()


class Propagation:
    """What is sharded so far: per axis the letter of operators and the dimension of tensors."""

    def __init__(self, graph: Graph, mesh: Mesh) -> None:
        self.graph, self.mesh = graph, mesh
        self.letters: dict[tuple[str, str], str] = {}
        self.dims: dict[tuple[str, str], int] = {}
        self._near: dict[str, list[tuple[str, str]]] = {name: [] for name in graph.shapes}
        for operator in graph.operators:
            for tensor, word in zip(
                (*operator.inputs, operator.name),
                (*operator.operands, operator.output),
                strict=True,
            ):
                self._near[tensor].append((operator.name, word))

    def decide(self, decision: Decision) -> None:
        """Shard a dimension of a tensor over an axis, and all that follows."""
        tensor, dim, axis = decision
        shape = self.graph.shapes.get(tensor, ())
        if axis not in self.mesh.sizes or not 0 <= dim < len(shape):
            raise RedistribError(
                "a decision is a tensor, a dimension of it and an axis of the mesh; got "
                f"{decision} for shape {list(shape)} on {self.mesh}",
                decision=decision,
            )
        waiting = [(tensor, dim)]
        while waiting:
            name, position = waiting.pop()
            if (name, axis) in self.dims or not self._divides(name, position, axis):
                continue
            self.dims[name, axis] = position
            for operator, word in self._near[name]:
                letter = word[position]
                if self._takes(operator, letter, axis):
                    self.letters[operator, axis] = letter
                    waiting += self._places(operator, letter)

    def _places(self, operator: str, letter: str) -> list[tuple[str, int]]:
        """Tensor and dimension of each place where an operator has a letter."""
        op = self.graph.operator(operator)
        words = zip((*op.inputs, op.name), (*op.operands, op.output), strict=True)
        return [(tensor, word.index(letter)) for tensor, word in words if letter in word]

    def _takes(self, operator: str, letter: str, axis: str) -> bool:
        op = self.graph.operator(operator)
        if (operator, axis) in self.letters or letter in op.whole:
            return False
        if not op.linear and letter not in op.output:
            return False
        axes = [a for a in self.mesh.sizes if self.letters.get((operator, a)) == letter]
        return self.graph.sizes(operator)[letter] % self._parts([*axes, axis]) == 0

    def _divides(self, tensor: str, dim: int, axis: str) -> bool:
        axes = [a for a in self.mesh.sizes if self.dims.get((tensor, a)) == dim]
        return self.graph.shapes[tensor][dim] % self._parts([*axes, axis]) == 0

    def _parts(self, axes: Sequence[str]) -> int:
        return prod(self.mesh.axis_size(axis) for axis in axes)

    def choice(self) -> dict[str, Any]:
        """The option of each operator and given tensor, after the decisions so far."""
        options: dict[str, Any] = {}
        written = {operator.name for operator in self.graph.operators}
        for name, shape in self.graph.shapes.items():
            axes = list(self.mesh.sizes)
            if name in written:
                letters = tuple(self.letters.get((name, axis), NONE) for axis in axes)
                options[name] = Sharding(self.graph, self.mesh, name, letters)
                continue
            dims = [[a for a in axes if self.dims.get((name, a)) == d] for d in range(len(shape))]
            try:
                options[name] = ArrayType(self.mesh, self.graph.dtype, shape, dims)
            except LayoutError:
                options[name] = ArrayType(self.mesh, self.graph.dtype, shape)
        return options
