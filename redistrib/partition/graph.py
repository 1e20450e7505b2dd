"""A program as operators over named tensors.

An operator is written as an einsum, a letter for each dimension of what it reads and writes. A
matrix product, an elementwise function, a reduction, an embedding and a whole attention block are
all such: letters that are read and not written are summed over, and letters that the operator
needs `whole` (those that a norm or a softmax runs over) cannot be sharded.

>>> graph = Graph(
...     {"x": (8, 16), "w1": (16, 32), "w2": (32, 16)},
...     [
...         Operator("h", "be,ef->bf", ("x", "w1")),
...         Operator("a", "bf->bf", ("h",), linear=False),
...         Operator("y", "bf,fe->be", ("a", "w2")),
...     ],
...     parameters=("w1", "w2"),
... )
>>> graph.shapes["y"], graph.operator("h").summed, graph.flops("h")
((8, 16), 'e', 8192.0)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import prod

from redistrib.errors import RedistribError
from redistrib.types.dtypes import dtype_name, itemsize


@dataclass(frozen=True, slots=True)
class Operator:
    """One operator: its `name` is that of the tensor that it writes.

    `expression` has a letter per dimension, `inputs` the tensors read. `linear` says whether a sum
    may be left unreduced in what it reads and writes, as it may before a matrix product is done;
    `whole` are letters that cannot be sharded; `work` are multiplications for each combination of
    letters, 1 for a product.
    """

    name: str
    expression: str
    inputs: tuple[str, ...]
    whole: str = ""
    linear: bool = True
    work: float = 1.0

    def __post_init__(self) -> None:
        operands = self.operands
        known = {*"".join(operands)}
        legal = "->" in self.expression and len(operands) == len(self.inputs)
        if not legal or not {*self.output, *self.whole} <= known:
            raise RedistribError(
                "an operator is written as an einsum, ab,bc->ac, with a word of letters per input "
                f"and letters that are read; got {self.expression!r} of {list(self.inputs)}",
                operator=self.name,
            )

    @property
    def operands(self) -> tuple[str, ...]:
        """The letters of each input."""
        return tuple(self.expression.partition("->")[0].split(","))

    @property
    def output(self) -> str:
        """The letters of the output."""
        return self.expression.partition("->")[2]

    @property
    def letters(self) -> str:
        """All letters, in the order in which they are read."""
        return "".join(dict.fromkeys("".join(self.operands)))

    @property
    def summed(self) -> str:
        """The letters that are read and not written."""
        return "".join(letter for letter in self.letters if letter not in self.output)


@dataclass(frozen=True, slots=True)
class Device:
    """What a device has: operations a second, bytes a second of memory, bytes of memory."""

    flops: float = 989e12
    bandwidth: float = 3.35e12
    memory: float = 80e9


class Graph:
    """Operators in the order in which they run, over the shapes of what they are given.

    `parameters` are those of the given tensors that are trained. Raises RedistribError where an
    operator reads a tensor that is not there, or with letters of two sizes.
    """

    def __init__(
        self,
        given: Mapping[str, Sequence[int]],
        operators: Iterable[Operator],
        parameters: Iterable[str] = (),
        dtype: str = "bf16",
    ) -> None:
        self.operators = tuple(operators)
        self.parameters = tuple(parameters)
        self.dtype = dtype_name(dtype)
        self.given = tuple(given)
        self.shapes: dict[str, tuple[int, ...]] = {n: tuple(s) for n, s in given.items()}
        self._sizes: dict[str, dict[str, int]] = {}
        for operator in self.operators:
            sizes: dict[str, int] = {}
            for name, letters in zip(operator.inputs, operator.operands, strict=True):
                shape = self.shapes.get(name)
                if shape is None or len(shape) != len(letters):
                    raise RedistribError(
                        f"{operator.name} reads {name} as {letters}, a tensor of "
                        f"{len(letters)} dimensions that is given or written before; got {shape}",
                        operator=operator.name,
                    )
                for letter, size in zip(letters, shape, strict=True):
                    if sizes.setdefault(letter, size) != size:
                        raise RedistribError(
                            f"a letter has one size in an operator; in {operator.name} "
                            f"{letter} is {sizes[letter]} and {size}",
                            operator=operator.name,
                        )
            self._sizes[operator.name] = sizes
            self.shapes[operator.name] = tuple(sizes[letter] for letter in operator.output)

    def operator(self, name: str) -> Operator:
        """The operator that writes a tensor."""
        return next(operator for operator in self.operators if operator.name == name)

    def sizes(self, name: str) -> Mapping[str, int]:
        """The size of each letter of an operator."""
        return self._sizes[name]

    def flops(self, name: str) -> float:
        """Multiplications and additions of an operator, on all devices together."""
        return 2 * self.operator(name).work * prod(self._sizes[name].values())

    def bytes_moved(self, name: str) -> int:
        """Bytes that an operator reads and writes, on all devices together."""
        tensors = (*self.operator(name).inputs, name)
        return sum(prod(self.shapes[t]) for t in tensors) * itemsize(self.dtype)

    def edges(self) -> list[tuple[str, str, int]]:
        """Every tensor with an operator that reads it and the number of the input."""
        return [(t, op.name, n) for op in self.operators for n, t in enumerate(op.inputs)]
