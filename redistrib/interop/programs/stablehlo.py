"""A plan as a StableHLO program: one function on one device's tile, with replica groups.

The program has one replica per device: replica r is the device at position r (row-major) of the
mesh, whatever its id; a runtime's device assignment says which device that is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from redistrib.interop.programs.mlir import element_type, tensor_type
from redistrib.interop.words import no_exchange
from redistrib.synth.plan.data import Plan, check_even
from redistrib.synth.plan.tile_program import Fetch, Groups, Send, Shape, interpret, tile_program
from redistrib.types.array_type import ArrayType
from redistrib.types.reduction import identity

_REDUCERS = {"sum": "add", "prod": "multiply", "max": "maximum", "min": "minimum"}
_BOOL_REDUCERS = {"sum": "or", "prod": "and", "max": "or", "min": "and"}


def plan_to_stablehlo(plan: Plan) -> str:
    """A module whose @main takes a device's tile of the source to its tile of the target.

    Raises LayoutError for an exchange.
    """
    check_even(plan, "a program of StableHLO")
    body = _Body(plan.src)
    tile = _Value(0, plan.src.tile_shape)
    for part in tile_program(plan.steps, plan.types):
        body.lines.append(f"// {part.step.collective}: {part.before}")
        tile = interpret(part.operations, body, tile)
    argument, result_type = (tensor_type(t.tile_shape, t.dtype) for t in (plan.src, plan.types[-1]))
    attributes = f"mhlo.num_partitions = 1 : i32, mhlo.num_replicas = {body.devices} : i32"
    lines = [
        f"module @redistribute attributes {{{attributes}}} {{",
        f"  // {plan.src} -> {plan.types[-1]} on the mesh {plan.src.mesh}",
        f"  func.func public @main(%0: {argument}) -> {result_type} {{",
        *(f"    {line}" for line in body.lines),
        f"    return %{tile.number} : {result_type}",
        "  }",
        "}",
    ]
    return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class _Value:
    """A value of the program, `%number`, and its shape."""

    number: int
    shape: Shape


class _Body:
    """The operations of the function; as `Primitives`, it takes and gives values."""

    def __init__(self, src: ArrayType) -> None:
        self.dtype, self.numpy_dtype = src.dtype, src.numpy_dtype
        self.devices = src.mesh.num_devices
        self.lines: list[str] = []
        self.values = 0

    def reshape(self, tile: _Value, shape: Shape) -> _Value:
        if tile.shape == shape:
            return tile
        arrow = f"({self._type(tile.shape)}) -> {self._type(shape)}"
        return self._value(f"stablehlo.reshape %{tile.number} : {arrow}", shape)

    def transpose(self, tile: _Value, order: tuple[int, ...]) -> _Value:
        shape = tuple(tile.shape[axis] for axis in order)
        arrow = f"({self._type(tile.shape)}) -> {self._type(shape)}"
        dims = f"dims = {list(order)}"
        return self._value(f"stablehlo.transpose %{tile.number}, {dims} : {arrow}", shape)

    def pick(self, pieces: _Value, groups: Groups) -> _Value:
        rank, piece = len(pieces.shape), pieces.shape[1:]
        start = self._starts(self._place(groups), rank)
        sizes = (1, *piece)
        types = ", ".join([self._type(pieces.shape), *["tensor<i32>"] * rank])
        picked = self._value(
            f"stablehlo.dynamic_slice %{pieces.number}, {start}, sizes = {list(sizes)} : "
            f"({types}) -> {self._type(sizes)}",
            sizes,
        )
        return self.reshape(picked, piece)

    def place(self, piece: _Value, groups: Groups, reduction: str) -> _Value:
        shape = (groups.size, *piece.shape)
        identity = self._identity(shape, reduction)
        placed = self.reshape(piece, (1, *piece.shape))
        start = self._starts(self._place(groups), len(shape))
        types = ", ".join(
            [self._type(shape), self._type(placed.shape), *["tensor<i32>"] * len(shape)]
        )
        return self._value(
            f"stablehlo.dynamic_update_slice %{identity}, %{placed.number}, {start} : "
            f"({types}) -> {self._type(shape)}",
            shape,
        )

    def gather(self, tile: _Value, groups: Groups) -> _Value:
        piece = self.reshape(tile, (1, *tile.shape))
        shape = (groups.size, *tile.shape)
        return self._collective("all_gather", piece, shape, groups, "all_gather_dim = 0 : i64")

    def swap(self, pieces: _Value, groups: Groups) -> _Value:
        attributes = (
            "split_dimension = 0 : i64, concat_dimension = 0 : i64, "
            f"split_count = {groups.size} : i64"
        )
        return self._collective("all_to_all", pieces, pieces.shape, groups, attributes)

    def scatter(self, pieces: _Value, groups: Groups, reduction: str) -> _Value:
        piece = pieces.shape[1:]
        reduced = self._collective(
            "reduce_scatter",
            pieces,
            (1, *piece),
            groups,
            "scatter_dimension = 0 : i64",
            self._reducer(reduction),
        )
        return self.reshape(reduced, piece)

    def reduce(self, tile: _Value, groups: Groups, reduction: str) -> _Value:
        reducer = self._reducer(reduction)
        return self._collective("all_reduce", tile, tile.shape, groups, "", reducer)

    def keep_first(self, tile: _Value, groups: Groups, reduction: str) -> _Value:
        identity = self._identity(tile.shape, reduction)
        zero = self._number("stablehlo.constant dense<0> : tensor<i32>")
        first = self._number(
            f"stablehlo.compare EQ, %{self._place(groups)}, %{zero} : "
            "(tensor<i32>, tensor<i32>) -> tensor<i1>"
        )
        return self._value(
            f"stablehlo.select %{first}, %{tile.number}, %{identity} : "
            f"tensor<i1>, {self._type(tile.shape)}",
            tile.shape,
        )

    def send(self, tile: _Value, operation: Send) -> _Value:
        pairs = [[source, position] for position, source in enumerate(operation.sources().tolist())]
        return self._value(
            f'"stablehlo.collective_permute"(%{tile.number}) '
            f"<{{source_target_pairs = {_dense(pairs)}}}> : "
            f"({self._type(tile.shape)}) -> {self._type(tile.shape)}",
            tile.shape,
        )

    def fetch(self, tile: _Value, operation: Fetch) -> _Value:  # noqa: ARG002
        raise no_exchange(operation.step)

    def _collective(
        self,
        name: str,
        value: _Value,
        shape: Shape,
        groups: Groups,
        attributes: str,
        region: str = "",
    ) -> _Value:
        members = _dense(groups.members().tolist())
        fields = ", ".join(filter(None, [attributes, f"replica_groups = {members}"]))
        return self._value(
            f'"stablehlo.{name}"(%{value.number}) <{{{fields}}}>{region} : '
            f"({self._type(value.shape)}) -> {self._type(shape)}",
            shape,
        )

    def _place(self, groups: Groups) -> int:
        """The place of this device in its group, looked up by its replica id."""
        listed = self._number(f"stablehlo.constant {_dense(groups.places().tolist(), 'i32')}")
        replica = self._number("stablehlo.replica_id : tensor<ui32>")
        entry = self._number(
            f"stablehlo.dynamic_slice %{listed}, %{replica}, sizes = [1] : "
            f"(tensor<{self.devices}xi32>, tensor<ui32>) -> tensor<1xi32>"
        )
        return self._number(f"stablehlo.reshape %{entry} : (tensor<1xi32>) -> tensor<i32>")

    def _starts(self, number: int, rank: int) -> str:
        """The start of a slice: a number in front, zeros behind."""
        if rank == 1:
            return f"%{number}"
        zero = self._number("stablehlo.constant dense<0> : tensor<i32>")
        return ", ".join([f"%{number}", *[f"%{zero}"] * (rank - 1)])

    def _identity(self, shape: Shape, reduction: str) -> int:
        value = np.asarray(identity(self.numpy_dtype, reduction), self.numpy_dtype)
        return self._number(f"stablehlo.constant dense<{_literal(value)}> : {self._type(shape)}")

    def _reducer(self, reduction: str) -> str:
        scalar = f"tensor<{element_type(self.dtype)}>"
        name = (_BOOL_REDUCERS if self.dtype == "bool" else _REDUCERS)[reduction]
        return (
            f" ({{ ^bb0(%a: {scalar}, %b: {scalar}): "
            f"%c = stablehlo.{name} %a, %b : {scalar} "
            f"stablehlo.return %c : {scalar} }})"
        )

    def _type(self, shape: Sequence[int]) -> str:
        return tensor_type(shape, self.dtype)

    def _value(self, operation: str, shape: Shape) -> _Value:
        return _Value(self._number(operation), shape)

    def _number(self, operation: str) -> int:
        """Append an operation; the number of its value."""
        self.values += 1
        self.lines.append(f"%{self.values} = {operation}")
        return self.values


def _dense(values: list[Any], element: str = "i64") -> str:
    """Integers as an attribute with its type.

    >>> _dense([[0, 1], [2, 3]])
    'dense<[[0, 1], [2, 3]]> : tensor<2x2xi64>'
    """
    shape = "x".join(map(str, np.shape(values)))
    return f"dense<{values}> : tensor<{shape}x{element}>"


def _literal(value: NDArray[Any]) -> str:
    """A scalar as MLIR writes it; what is no number by its bits."""
    match value.dtype.kind:
        case "b":
            return "true" if value else "false"
        case "c":
            return f"({_literal(value.real)}, {_literal(value.imag)})"
        case "i" | "u":
            return str(int(value))
        case _:
            if abs(float(value)) <= 1:
                return f"{float(value):.1f}"
            size = value.dtype.itemsize
            return f"0x{int(value.view(f'u{size}')):0{2 * size}X}"
