"""The ways to shard an operator, as types of what it reads and writes, forward and backward.

A sharding gives each axis of the mesh a letter of the operator, or none. Then, for each axis,

    the letter is in a tensor         the tensor is sharded over the axis in that dimension
    it is summed over                 what is written is a partial sum over the axis
    it is not in something read       whose gradient is a partial sum over the axis
    there is none                     the axis computes everything again

On x=2,y=4, `be,ef->bf` with x for b and y for e reads `{x},{y}` and `{y},-`, and writes `{x},-`
as a partial sum over y:

>>> from redistrib.types.mesh import Mesh
>>> from redistrib.partition.graph import Graph, Operator
>>> graph = Graph({"x": (8, 16), "w": (16, 32)}, [Operator("h", "be,ef->bf", ("x", "w"))])
>>> sharding = Sharding(graph, Mesh(x=2, y=4), "h", ("b", "e"))
>>> [str(t) for t in sharding.inputs], str(sharding.output)
(['bf16[8{x}, 16{y}]', 'bf16[16{y}, 32]'], 'bf16[8{x}, 32] sum{y}')
>>> [str(t) for t in sharding.input_gradients], str(sharding.output_gradient)
(['bf16[8{x}, 16{y}]', 'bf16[16{y}, 32] sum{x}'], 'bf16[8{x}, 32]')
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from math import prod

from redistrib.errors import LayoutError
from redistrib.partition.graph import Graph
from redistrib.types.array_type import ArrayType
from redistrib.types.mesh import Mesh

NONE = ""
"""The letter of an axis that shards nothing."""


@dataclass(frozen=True, slots=True)
class Sharding:
    """A letter for each axis of the mesh, and the types that follow for an operator.

    Raises LayoutError where the axes do not divide a dimension.
    """

    graph: Graph = field(repr=False, compare=False)
    mesh: Mesh = field(repr=False)
    operator: str
    letters: tuple[str, ...]
    inputs: tuple[ArrayType, ...] = field(init=False, repr=False, compare=False)
    output: ArrayType = field(init=False, repr=False, compare=False)
    input_gradients: tuple[ArrayType, ...] = field(init=False, repr=False, compare=False)
    output_gradient: ArrayType = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        operator = self.graph.operator(self.operator)
        words = operator.operands
        set_ = object.__setattr__
        set_(self, "inputs", tuple(self._type(word, "") for word in words))
        set_(self, "output", self._type(operator.output, operator.summed))
        set_(self, "output_gradient", self._type(operator.output, ""))
        others = ["".join(x for x in operator.letters if x not in word) for word in words]
        set_(self, "input_gradients", tuple(map(self._type, words, others)))

    def _type(self, word: str, partial: str) -> ArrayType:
        """The type of a tensor with these letters, partial over the axes of other letters."""
        sizes = self.graph.sizes(self.operator)
        pairs = [(a, x) for (a, _), x in zip(self.mesh.axes, self.letters, strict=True) if x]
        dims = [tuple(axis for axis, letter in pairs if letter == wanted) for wanted in word]
        summed = [axis for axis, letter in pairs if letter in partial]
        return ArrayType(self.mesh, self.graph.dtype, [sizes[x] for x in word], dims, summed)

    @property
    def ways(self) -> int:
        """Into how many parts the work is divided."""
        return prod(n for (_, n), x in zip(self.mesh.axes, self.letters, strict=True) if x)


def shardings(graph: Graph, mesh: Mesh, operator: str, idle: bool = False) -> list[Sharding]:
    """All shardings of an operator; with `idle` also those in which an axis shards nothing."""
    op = graph.operator(operator)
    legal = [x for x in op.letters if x not in op.whole]
    legal = [x for x in legal if op.linear or x in op.output]
    options = [*legal, *([NONE] if idle or not legal else [])]
    result = []
    for letters in product(options, repeat=len(mesh.axes)):
        try:
            result.append(Sharding(graph, mesh, operator, letters))
        except LayoutError:  # the axes do not divide a dimension
            continue
    return result


def tensor_types(graph: Graph, mesh: Mesh, tensor: str) -> Iterator[ArrayType]:
    """The layouts of whole axes of a tensor, axes in mesh order: how it may be stored."""
    shape = graph.shapes[tensor]
    # Where all readers need a dimension whole it is stored whole.
    free = [
        {dim for dim, letter in enumerate(op.operands[n]) if letter not in op.whole}
        for op in graph.operators
        for n, name in enumerate(op.inputs)
        if name == tensor
    ]
    dims_of = sorted(set().union(*free)) if free else range(len(shape))
    for places in product((-1, *dims_of), repeat=len(mesh.axes)):
        dims = [
            tuple(axis for (axis, _), place in zip(mesh.axes, places, strict=True) if place == dim)
            for dim in range(len(shape))
        ]
        try:
            yield ArrayType(mesh, graph.dtype, shape, dims)
        except LayoutError:
            continue


def sharded_further(t: ArrayType, axes: Iterable[str]) -> ArrayType:
    """A type sharded over more axes, each in the first dimension that it divides, else not.

    >>> from redistrib.types.mesh import Mesh
    >>> str(sharded_further(ArrayType.parse("f32[4{x}, 16]", Mesh(x=4, y=8)), ["y"]))
    'f32[4{x}, 16{y}]'
    """
    for axis in axes:
        for dim, factors in enumerate(t.dims):
            try:
                t = t.replace(dims=[*t.dims[:dim], (*factors, axis), *t.dims[dim + 1 :]])
                break
            except LayoutError:
                continue
    return t
